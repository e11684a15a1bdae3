"""The answer records: a chain that grows at its end, one transaction after the other.

The database itself refuses to change a record, other than by erasing its personal part, to delete
one, or to add one that does not follow the head; the head moves with each record that is added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, exists, insert, select, update

from appliance.domain.chain import Head, Sealed, seal
from appliance.domain.record import Described
from appliance.storage.records import Message
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import answer_chain, answer_records, conversations, messages

PAGE = 500
"""Records read at a time when all are read."""

_COLUMNS = columns_for(Sealed, answer_records)
_c = answer_records.c
_answer = messages.alias("answer")
_question = messages.alias("question")


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A record beside what the conversation holds: None where the message is not there."""

    record: Sealed
    answer: str | None
    question: str | None


class AnswerRecordRepository(Repository):
    """Records by number and by the message they explain."""

    def append(self, reply: Message, described: Described) -> Sealed:
        """Seal an answer's record upon the latest one. The head's row is locked until the
        transaction ends: whoever appends next waits here, and then sees this record."""
        head = select(answer_chain.c.seq, answer_chain.c.digest).with_for_update()
        content = described.content | {
            "at": reply.created_at.isoformat(),
            "question_id": reply.reply_to,
        }
        record = seal(
            self._one(Head, head), reply.id, reply.conversation_id, content, described.personal
        )
        self._connection.execute(insert(answer_records).values(asdict(record)))
        return record

    def head(self) -> Head:
        """Where the chain ends."""
        return self._one(Head, select(answer_chain.c.seq, answer_chain.c.digest))

    def began_at(self) -> datetime:
        """Since when every answer has a record."""
        began_at: datetime = self._connection.execute(select(answer_chain.c.began_at)).scalar_one()
        return began_at

    def get(self, seq: int) -> Sealed | None:
        return self._first(Sealed, select(*_COLUMNS).where(_c.seq == seq))

    def of_message(self, message_id: str) -> Sealed | None:
        """The record of the desk's answer with this id."""
        return self._first(Sealed, select(*_COLUMNS).where(_c.message_id == message_id))

    def latest(self, limit: int) -> Sequence[Sealed]:
        """The latest records, newest first."""
        return self._all(Sealed, select(*_COLUMNS).order_by(_c.seq.desc()).limit(limit))

    def witnessed(self, first: int = 1, last: int | None = None) -> Iterator[Witnessed]:
        """Records in order of their numbers, with the messages they are about; read page by
        page."""
        joined = answer_records.outerjoin(_answer, _answer.c.id == _c.message_id).outerjoin(
            _question, _question.c.id == _answer.c.reply_to
        )
        statement = (
            select(*_COLUMNS, _answer.c.content.label("said"), _question.c.content.label("asked"))
            .select_from(joined)
            .order_by(_c.seq)
            .limit(PAGE)
        )
        if last is not None:
            statement = statement.where(_c.seq <= last)
        while True:
            rows = self._connection.execute(statement.where(_c.seq >= first)).all()
            for row in rows:
                found = row._asdict()
                said, asked = found.pop("said"), found.pop("asked")
                yield Witnessed(Sealed(**found), said, asked)
            if len(rows) < PAGE:
                return
            first = rows[-1].seq + 1

    def unrecorded(self) -> list[str]:
        """Ids of the desk's answers that should have a record and have none."""
        statement = select(messages.c.id).where(
            messages.c.role == "assistant",
            messages.c.reply_to.is_not(None),
            messages.c.created_at >= self.began_at(),
            ~exists().where(_c.message_id == messages.c.id),
        )
        return list(self._connection.scalars(statement.order_by(messages.c.created_at)))

    def erase_conversation(self, conversation_id: str) -> int:
        """Erase what the records of a conversation, whose row is locked, hold of a person; return
        how many there were."""
        return self._erase(_c.conversation_id == conversation_id)

    def erase_user(self, user_id: str) -> int:
        """Erase what the records of a user's conversations hold; to be done before those are
        deleted, because the records do not say whose they are."""
        theirs = select(conversations.c.id).where(conversations.c.user_id == user_id)
        # An answer under way holds its conversation's row: wait for its record.
        self._connection.execute(theirs.with_for_update())
        return self._erase(_c.conversation_id.in_(theirs))

    def _erase(self, which: ColumnElement[bool]) -> int:
        return self._connection.execute(
            update(answer_records)
            .where(which, _c.personal.is_not(None))
            .values(personal=None, salt=None)
        ).rowcount

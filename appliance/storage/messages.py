"""The turns of conversations, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, or_, select, update

from appliance.domain.answer import Mode, Outcome
from appliance.domain.policy import Category, Sentiment
from appliance.domain.query import Speaker
from appliance.errors import NotFound
from appliance.storage.records import Message, MessageState
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import conversations, messages
from appliance.storage.types import new_id, utc_now

_COLUMNS = columns_for(Message, messages)
_c = messages.c


class MessageRepository(Repository):
    """Messages by id and by conversation."""

    def add(
        self,
        conversation_id: str,
        role: Speaker,
        content: str,
        state: MessageState,
        *,
        reply_to: str | None = None,
        category: Category | None = None,
        sentiment: Sentiment | None = None,
        priority: int | None = None,
        outcome: Outcome | None = None,
        mode: Mode | None = None,
        escalated: bool = False,
        details: Mapping[str, Any] | None = None,
    ) -> Message:
        """Append to the conversation, which thereby counts as updated.

        :raises NotFound: there is no such conversation.
        """
        now = utc_now()
        # Touching the conversation's row also locks it on PostgreSQL until the commit: whoever
        # appends next waits here, and then sees this message when it looks for the last number.
        touched = self._connection.execute(
            update(conversations)
            .where(conversations.c.id == conversation_id)
            .values(updated_at=now)
        )
        if touched.rowcount == 0:
            raise NotFound("There is no such conversation.")
        last = self._connection.scalar(
            select(func.max(_c.seq)).where(_c.conversation_id == conversation_id)
        )
        statement = insert(messages).values(
            id=new_id(),
            conversation_id=conversation_id,
            seq=(last or 0) + 1,
            role=role,
            content=content,
            state=state,
            reply_to=reply_to,
            category=category,
            sentiment=sentiment,
            priority=priority,
            outcome=outcome,
            mode=mode,
            escalated=escalated,
            details=dict(details or {}),
            created_at=now,
        )
        return self._one(Message, statement.returning(*_COLUMNS))

    def get(self, message_id: str) -> Message | None:
        return self._first(Message, select(*_COLUMNS).where(_c.id == message_id))

    def set_state(self, message_id: str, state: MessageState) -> None:
        """:raises NotFound: there is no such message."""
        changed = self._connection.execute(
            update(messages).where(_c.id == message_id).values(state=state)
        )
        if changed.rowcount == 0:
            raise NotFound("There is no such message.")

    def list(self, conversation_id: str, limit: int | None = None) -> Sequence[Message]:
        """The conversation from its beginning."""
        statement = select(*_COLUMNS).where(_c.conversation_id == conversation_id).order_by(_c.seq)
        return self._all(Message, statement if limit is None else statement.limit(limit))

    def latest(self, conversation_id: str, limit: int) -> Sequence[Message]:
        """The last messages of the conversation, oldest first."""
        newest_first = (
            select(*_COLUMNS)
            .where(_c.conversation_id == conversation_id)
            .order_by(_c.seq.desc())
            .limit(limit)
        )
        return self._all(Message, newest_first)[::-1]

    def reply(self, message_id: str) -> Message | None:
        """The first message that answers this one."""
        statement = select(*_COLUMNS).where(_c.reply_to == message_id).order_by(_c.seq).limit(1)
        return self._first(Message, statement)

    def fail_received(self, before: datetime, after: datetime) -> int:
        """Mark customers' messages from before the one time or after the other that still wait for
        an answer; return how many."""
        old = or_(_c.created_at < before, _c.created_at > after)
        waiting = (_c.state == "received") & old
        return self._connection.execute(
            update(messages).where(waiting).values(state="failed")
        ).rowcount

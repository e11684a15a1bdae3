"""Answer records as people use them: listed, explained, verified."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from appliance.domain.chain import Finding, Head, Sealed, walk
from appliance.domain.record import article_digest
from appliance.errors import InvalidInput, NotFound
from appliance.services.access import Principal
from appliance.storage.answer_records import Witnessed
from appliance.storage.database import Database, Records

LIST_MAX = 1_000
DIGEST_CHARS = 64
NUMBER_CHARS = 18
"""Longest record number read as one; a longer text of digits is a message's id."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A record in one line. ``message`` is None once it is erased."""

    record: int
    at: str
    message_id: str
    outcome: str
    mode: str
    model: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class Shown:
    """A record, opened. ``articles`` says of each passage's article whether it still reads the
    same: ``same``, ``changed`` or ``gone``. ``personal`` is None once it is erased."""

    record: int
    digest: str
    previous: str
    content: dict[str, Any]
    personal: dict[str, Any] | None
    articles: dict[str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verifying found. ``head`` is SEQ:DIGEST of the latest record, to be kept elsewhere;
    ``erased`` are the numbers of the records whose personal part is gone."""

    sound: bool
    records: int
    head: str
    erased: list[int]
    findings: list[Finding]


class AnswerRecords:
    """Reads records. Answering writes them, forgetting a person erases what they hold."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def latest(self, limit: int) -> list[Listed]:
        """The latest records, newest first."""
        limit = max(1, min(limit, LIST_MAX))
        found = await self._database.read(lambda records: records.answers.latest(limit))
        return [_listed(record) for record in found]

    async def show(self, name: str) -> Shown:
        """Open a record.

        :param name: its number, or the id of the answer or of the message that was answered.
        :raises NotFound: there is no such record.
        """

        def work(records: Records) -> Shown:
            record = find(records, name)
            content = json.loads(record.content)
            articles = {p["id"]: _article(records, p) for p in content["passages"]}
            return Shown(
                record.seq,
                record.digest,
                record.previous,
                content,
                None if record.personal is None else json.loads(record.personal),
                articles,
            )

        return await self._database.read(work)

    async def show_to(self, principal: Principal, message_id: str) -> Shown:
        """Open the record of an answer for an agent or an administrator.

        :raises Forbidden: for anybody else.
        :raises NotFound: there is no such record.
        """
        principal.require("agent", "admin")
        return await self.show(message_id)

    async def verify(self, name: str | None = None, *, expect: Head | None = None) -> Verdict:
        """Check one record and its neighbours, or the whole chain and that no answer is without a
        record.

        :param expect: a head noted earlier, which has to stand in the chain still.
        :raises NotFound: there is no such record.
        """

        def work(records: Records) -> Verdict:
            head = records.answers.head()
            wanted = None if name is None else find(records, name).seq
            reading = _Reading(records, wanted)
            findings = list(reading.findings(head))
            if wanted is None:
                findings += [
                    Finding(None, "unrecorded", f"The answer {message_id} has no record.")
                    for message_id in records.answers.unrecorded()
                ]
            if expect is not None:
                findings += _unexpected(records, expect)
            return Verdict(not findings, reading.count, str(head), reading.erased, findings)

        return await self._database.read(work)


def find(records: Records, name: str) -> Sealed:
    """A record by its number, by its answer's id, or by the id of the message answered.

    :raises NotFound: there is none.
    """
    if name.isascii() and name.isdecimal() and len(name) <= NUMBER_CHARS:
        found = records.answers.get(int(name))
    else:
        found = records.answers.of_message(name)
        if found is None and (reply := records.messages.reply(name)) is not None:
            found = records.answers.of_message(reply.id)
    if found is None:
        raise NotFound(
            "There is no such answer record.", hint="'appliance answers list' shows the latest."
        )
    return found


def read_head(text: str) -> Head:
    """A head as ``verify`` prints it.

    :raises InvalidInput: it is not SEQ:DIGEST.
    """
    seq, _, digest = text.strip().partition(":")
    hexadecimal = len(digest) == DIGEST_CHARS and set(digest) <= set("0123456789abcdef")
    if not (seq.isascii() and seq.isdecimal() and len(seq) <= NUMBER_CHARS and hexadecimal):
        raise InvalidInput("A head is SEQ:DIGEST, as 'appliance answers verify' prints it.")
    return Head(int(seq), digest)


class _Reading:
    """One pass over the chain, or over one record and its neighbours."""

    def __init__(self, records: Records, wanted: int | None) -> None:
        self._records = records
        self._wanted = wanted
        self.count = 0
        self.erased: list[int] = []
        self._told: list[Finding] = []

    def findings(self, head: Head) -> Iterator[Finding]:
        first = max(1, (self._wanted or 1) - 1)
        last = None if self._wanted is None else self._wanted + 1
        for finding in walk(self._watched(first, last), head, first=first, last=last):
            if self._wanted in (None, finding.record):
                yield finding
        yield from self._told

    def _watched(self, first: int, last: int | None) -> Iterator[Sealed]:
        for witnessed in self._records.answers.witnessed(first, last):
            record = witnessed.record
            if self._wanted in (None, record.seq):
                self.count += 1
                if record.erased:
                    self.erased.append(record.seq)
                self._told += _unlike_message(witnessed)
            yield record


def _unlike_message(witnessed: Witnessed) -> Iterator[Finding]:
    """Where the conversation says something else than the record."""
    record = witnessed.record
    if record.erased:
        if witnessed.answer is not None:
            detail = "Its personal part was erased, its message is still there."
            yield Finding(record.seq, "message", detail)
        return
    try:
        personal = json.loads(record.personal or "")
        said, asked = personal["answer"]["response"], personal["query"]["text"]
    except (ValueError, KeyError, TypeError):
        return  # the digest tells
    for what, recorded, stored in (
        ("answer", said, witnessed.answer),
        ("question", asked, witnessed.question),
    ):
        if stored is None:
            yield Finding(record.seq, "message", f"The {what} is not in the conversation any more.")
        elif stored != recorded:
            yield Finding(record.seq, "message", f"The {what} was changed in the conversation.")


def _unexpected(records: Records, expect: Head) -> Iterator[Finding]:
    if expect.seq == 0:
        return
    record = records.answers.get(expect.seq)
    if record is None:
        yield Finding(expect.seq, "missing", "It was noted elsewhere, and is not there any more.")
    elif record.digest != expect.digest:
        yield Finding(expect.seq, "resealed", "Another digest of it was noted elsewhere.")


def _article(records: Records, passage: dict[str, Any]) -> str:
    article = records.knowledge.get(passage["id"])
    if article is None:
        return "gone"
    return "same" if article_digest(article) == passage["digest"] else "changed"


def _listed(record: Sealed) -> Listed:
    content = json.loads(record.content)
    personal = None if record.personal is None else json.loads(record.personal)
    return Listed(
        record=record.seq,
        at=content["at"],
        message_id=record.message_id,
        outcome=content["answer"]["outcome"],
        mode=content["answer"]["mode"],
        model=content["made_with"]["model"],
        message=None if personal is None else personal["query"]["text"],
    )

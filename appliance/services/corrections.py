"""What people say of messages: corrections of the desk's agents, and files of labelled messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from appliance.domain.examples import Example
from appliance.domain.policy import MESSAGE_MAX_CHARS, Category, Intent, Sentiment
from appliance.domain.redaction import SECRETS, redact
from appliance.domain.text import clean
from appliance.errors import Conflict, InvalidInput, NotFound
from appliance.services.access import Principal
from appliance.storage.database import Database, Records
from appliance.storage.records import LabelledMessage, Labels


class _Line(msgspec.Struct):
    text: str
    category: Category | None = None
    sentiment: Sentiment | None = None
    intent: Intent | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file's lines: new, or said before."""

    added: int
    ignored: int


class Corrections:
    """Takes what people say. The heads learn from it in the background, see ``Learning``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def correct(self, principal: Principal, message_id: str, said: Labels) -> LabelledMessage:
        """Say what a customer's message is; the latest word counts.

        :param message_id: the message, or the desk's answer to it.
        :raises Forbidden: the principal is a customer.
        :raises InvalidInput: nothing is said.
        :raises NotFound: there is no such message.
        :raises Conflict: it is neither a customer's message nor an answer to one.
        """
        principal.require("agent", "admin")
        if not said:
            raise InvalidInput("A correction names a category, a sentiment or an intent.")

        def work(records: Records) -> LabelledMessage:
            message = records.messages.get(message_id)
            if message is not None and message.reply_to is not None:
                message = records.messages.get(message.reply_to)
            if message is None:
                raise NotFound("There is no such message.")
            if message.role != "customer":
                raise Conflict("Only customers' messages and the answers to them can be corrected.")
            records.events.add(
                "message.corrected",
                conversation_id=message.conversation_id,
                data={"message_id": message.id, **said},
            )
            records.audit.add(principal.owner, "learn.correct", message.id, said)
            return records.examples.correct(message.id, message.content, said, principal.owner)

        return await self._database.answer(work)

    async def add(self, principal: Principal, examples: Sequence[Example]) -> Imported:
        """Store examples of a file, without secrets, but for what was said before.

        :raises Forbidden: the principal is no administrator.
        """
        principal.require("admin")
        kept = [replace(each, text=redact(each.text, SECRETS).text) for each in examples]

        def work(records: Records) -> Imported:
            added = records.examples.add(kept, principal.owner)
            imported = Imported(added, len(kept) - added)
            if added:
                records.audit.add(principal.owner, "learn.import", "examples", {"added": added})
            return imported

        return await self._database.write(work)


def labels(category: Category | None, sentiment: Sentiment | None, intent: Intent | None) -> Labels:
    """What is said, without what is not."""
    said: Labels = {}
    if category is not None:
        said["category"] = category
    if sentiment is not None:
        said["sentiment"] = sentiment
    if intent is not None:
        said["intent"] = intent
    return said


def read_labelled(path: Path) -> list[Example]:
    """Labelled messages of a JSONL file: ``text`` and at least one of ``category``, ``sentiment``
    and ``intent``.

    :raises InvalidInput: naming the first line that is wrong.
    """
    try:
        # Not splitlines: JSON may hold U+2028.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read as UTF-8 text.") from error
    examples = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = msgspec.json.decode(line, type=_Line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"{where}: {error}.") from error
        text = clean(row.text)
        if not 1 <= len(text) <= MESSAGE_MAX_CHARS:
            raise InvalidInput(f'{where}: "text" has 1 to {MESSAGE_MAX_CHARS} visible characters.')
        if row.category is None and row.sentiment is None and row.intent is None:
            raise InvalidInput(f"{where}: a category, a sentiment or an intent is missing.")
        examples.append(Example(text, row.category, row.sentiment, row.intent))
    if not examples:
        raise InvalidInput(f"{path} holds no examples.")
    return examples

"""The desk's own golden set: its articles' questions, what its customers confirmed and its agents
corrected, and what somebody adds.

Golden items never train. A text of the set is left out of what the heads learn; a text that trained
the shipped heads never comes into the set, and neither does a corrected message that teaches: of
the corrections only those whose hash makes them judges are taken (``domain/examples.py``).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.domain.examples import held_out, text_key
from appliance.domain.passage import Article
from appliance.domain.policy import HISTORY_TURNS
from appliance.domain.redaction import SECRETS, redact
from appliance.domain.text import clean
from appliance.errors import InvalidInput, NotFound
from appliance.services.access import Principal
from appliance.storage.database import Database, Records
from appliance.storage.records import Conversation, GoldenRow, LabelledMessage, Message
from appliance.understanding.reader import read_examples

ARTICLES, CONFIRMED, CORRECTED, ADDED = "articles", "confirmed", "corrected", "added"
LABELS = ("category", "sentiment", "intent")

Line = Mapping[str, Any]
"""An evaluation line, see ARCHITECTURE.md, section 5."""


@dataclass(frozen=True, slots=True)
class Built:
    """How many items there are now by source, and how many texts were left out because they
    train."""

    items: dict[str, int]
    training: int


@dataclass(frozen=True, slots=True)
class Added:
    """How many lines were stored, and how many left out because the shipped heads were trained on
    them."""

    added: int
    training: int


class GoldenSet:
    """Builds, changes and hands out the set.

    :param shipped: the file of shipped examples.
    """

    def __init__(self, database: Database, shipped: Path) -> None:
        self._database = database
        self._shipped = shipped

    async def items(self) -> list[dict[str, Any]]:
        """The set as evaluation lines."""
        return [{**row.line, "source": row.source} for row in await self.rows()]

    async def rows(self) -> Sequence[GoldenRow]:
        """The set, by source."""
        return await self._database.read(lambda records: records.golden.list())

    async def build(self, principal: Principal) -> Built:
        """Make the items of articles and conversations anew; added ones stay as they are.

        :raises Forbidden: the principal is no administrator.
        """
        principal.require("admin")
        shipped = self._shipped_keys()
        rows, training = await self._database.read(lambda records: _candidates(records, shipped))

        def work(records: Records) -> Built:
            records.golden.remove_built()
            by_hand = {row.id for row in records.golden.list()}
            records.golden.put(row for row in rows if row.id not in by_hand)
            counts = Counter(row.source for row in records.golden.list())
            records.audit.add(principal.owner, "golden.build", "golden", counts)
            return Built(dict(counts), training)

        return await self._database.write(work)

    async def add(self, principal: Principal, lines: Sequence[Line]) -> Added:
        """Add evaluation lines, without secrets; one that asks what an item asks replaces it.

        :raises Forbidden: the principal is no administrator.
        """
        principal.require("admin")
        shipped = self._shipped_keys()
        rows = [_row(_clean(line), str(line.get("source") or ADDED), built=False) for line in lines]
        kept = {row.id: row for row in rows if row.text_key not in shipped}

        def work(records: Records) -> Added:
            records.golden.put(kept.values())
            added = Added(len(kept), sum(row.text_key in shipped for row in rows))
            records.audit.add(principal.owner, "golden.add", "golden", {"added": added.added})
            return added

        return await self._database.write(work)

    async def remove(
        self, principal: Principal, *, item_id: str | None = None, source: str | None = None
    ) -> int:
        """Remove an item, or all of a source; how many there were.

        :raises Forbidden: the principal is no administrator.
        :raises InvalidInput: neither is named, or both are.
        :raises NotFound: there is no such item or source.
        """
        principal.require("admin")
        if (item_id is None) == (source is None):
            raise InvalidInput("Name an item or a source.")

        def work(records: Records) -> int:
            removed = records.golden.remove(item_id=item_id, source=source)
            if not removed:
                raise NotFound("The golden set has no such item or source.")
            records.audit.add(principal.owner, "golden.remove", "golden", {"removed": removed})
            return removed

        return await self._database.write(work)

    def _shipped_keys(self) -> frozenset[str]:
        return frozenset(text_key(row["text"]) for row in read_examples(self._shipped))


def _candidates(records: Records, shipped: Collection[str]) -> tuple[list[GoldenRow], int]:
    """What can be built: of equal questions the corrected one goes before the confirmed one before
    the article's. And how many texts were left out."""
    articles = {article.id: article for article in records.knowledge.articles()}
    said = records.examples.list()
    labelled = {row.message_id: row for row in said if row.message_id is not None}
    teach = {key for key in (text_key(row.text) for row in said) if not held_out(key)}
    found = [
        row
        for conversation_id in records.golden.conversations()
        if (conversation := records.conversations.get(conversation_id)) is not None
        for row in _of_conversation(records, conversation, articles, labelled)
    ]
    found.sort(key=lambda row: row.source, reverse=True)
    found += [
        _row(
            {"text": a.question, "category": a.category, "faq": a.id, "answerable": True},
            ARTICLES,
            built=True,
        )
        for a in articles.values()
    ]
    rows: dict[str, GoldenRow] = {}
    left_out = set()
    for row in found:
        if row.text_key in shipped or row.text_key in teach:
            left_out.add(row.id)
        else:
            rows.setdefault(row.id, row)
    return list(rows.values()), len(left_out)


def _of_conversation(
    records: Records,
    conversation: Conversation,
    articles: Mapping[str, Article],
    labelled: Mapping[str, LabelledMessage],
) -> Iterator[GoldenRow]:
    turns = records.messages.list(conversation.id)
    ratings = records.feedback.for_conversation(conversation.id)
    replies = {turn.reply_to: turn for turn in turns if turn.reply_to is not None}
    for at, turn in enumerate(turns):
        if turn.role != "customer":
            continue
        said = labelled.get(turn.id)
        reply = replies.get(turn.id)
        article = None
        if reply is not None and reply.outcome == "answered" and reply.details.get("citations"):
            rating = ratings.get(reply.id)
            liked = rating is not None and rating.rating == "up"
            solved = rating is None and _solved(conversation, turn, turns[at + 1 :], replies)
            if liked or solved:
                article = articles.get(str(reply.details["citations"][0]["id"]))
        if said is None and article is None:
            continue
        line: dict[str, Any] = {"text": turn.content}
        history = [t for t in turns[:at] if t.content][-HISTORY_TURNS:]
        if history:
            line["history"] = [{"role": t.role, "content": t.content} for t in history]
        if article is not None:
            # The customer confirmed the answer; its article's category is a better word than the
            # head's own guess, which must not confirm itself.
            line |= {"faq": article.id, "category": article.category, "answerable": True}
        if said is not None:
            labels = {name: getattr(said, name) for name in LABELS}
            line |= {name: label for name, label in labels.items() if label is not None}
        yield _row(line, CONFIRMED if said is None else CORRECTED, built=True, message_id=turn.id)


def _solved(
    conversation: Conversation,
    turn: Message,
    later: Sequence[Message],
    replies: Mapping[str, Message],
) -> bool:
    """Whether the customer confirmed the answer to this turn: the conversation is resolved, it was
    its topic's question, and all that came after it was small talk such as "that worked"."""
    if conversation.status != "resolved" or conversation.topic_question != turn.content:
        return False
    after = [replies.get(message.id) for message in later if message.role == "customer"]
    return bool(after) and all(r is not None and r.outcome == "smalltalk" for r in after)


def _clean(line: Line) -> Line:
    """The line as everything is stored: nothing invisible, no secrets."""
    kept = {key: value for key, value in line.items() if key != "source"}
    kept["text"] = redact(clean(line["text"]), SECRETS).text
    if line.get("history"):
        kept["history"] = [
            {**turn, "content": redact(clean(turn["content"]), SECRETS).text}
            for turn in line["history"]
        ]
    return kept


def _row(line: Line, source: str, *, built: bool, message_id: str | None = None) -> GoldenRow:
    key = text_key(line["text"])
    asked = [key, [turn["content"] for turn in line.get("history", ())]]
    item_id = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    return GoldenRow(item_id, key, line, source, built, message_id)

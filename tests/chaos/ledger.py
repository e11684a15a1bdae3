"""The ledger: what customers were told against what is stored.

Read from the database itself, past the appliance, once nobody asks any more.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from appliance.domain.policy import QUERY_DEADLINE_SECONDS
from appliance.services.interruptions import LOOK_SECONDS
from tests.chaos.customers import Entry
from tests.chaos.units import Units

LONGEST_WAIT = timedelta(seconds=QUERY_DEADLINE_SECONDS + 2 * LOOK_SECONDS)
"""How old a message may be and still wait, where somebody else might be answering it."""


@dataclass(slots=True)
class Ledger:
    """Counts for the report, and every line that does not add up."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def expect(self, holds: bool, what: str) -> None:
        """Note what does not hold."""
        if not holds:
            self.wrong.append(what)

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in self.counts.items())


def audit(desk: Units, entries: Iterable[Entry]) -> Ledger:
    """Compare. A correct appliance leaves ``wrong`` empty."""
    entries = list(entries)
    ledger = Ledger()
    messages = {
        row.id: row
        for row in desk.table(
            "SELECT m.id, m.state, m.role, m.content, m.reply_to, m.conversation_id, c.user_id,"
            " c.status FROM messages m JOIN conversations c ON c.id = m.conversation_id"
        )
    }
    young = waiting(desk, since=datetime.now(UTC) - LONGEST_WAIT)
    rated = {row.message_id for row in desk.table("SELECT message_id FROM feedback")}
    events = Counter(
        (row.type, (json.loads(row.data) if isinstance(row.data, str) else row.data)["message_id"])
        for row in desk.table(
            "SELECT type, data FROM analytics_events"
            " WHERE type IN ('query.created', 'response.generated')"
        )
    )
    ledger.counts["sent"] = sum(entry.sent for entry in entries)
    ledger.counts["repeated"] = sum(entry.sent > 1 for entry in entries)
    asked = Counter(entry.user for entry in entries if entry.kind != "feedback")
    stored = Counter(row.user_id for row in messages.values() if row.role == "customer")
    for user, count in stored.items():
        # A request that was sent again is the same message.
        ledger.expect(count <= asked.get(user, count), f"{user}: {count} messages of {asked[user]}")
    for entry in entries:
        if entry.accepted is not None:
            _accepted(ledger, entry, messages)
        if entry.answer is None:
            ledger.counts["unknown or refused"] += 1
            continue
        ledger.counts["acknowledged"] += 1
        found = len(ledger.wrong)
        if entry.kind == "feedback":
            ledger.expect(entry.answer["message_id"] in rated, f"lost thumb: {entry}")
        elif entry.kind == "escalate":
            _escalated(ledger, entry, messages)
        else:
            _answered(ledger, entry, messages, events)
        ledger.counts["found"] += len(ledger.wrong) == found
    for row in messages.values():
        if row.role == "customer":
            final = row.state in ("answered", "failed")
            ledger.expect(final or row.id in young, f"left behind: message {row.id} is {row.state}")
            ledger.counts[f"messages {row.state}"] += 1
    _sound(ledger, desk)
    return ledger


def waiting(desk: Units, *, since: datetime | None = None) -> set[str]:
    """Ids of messages without their final state, of those that came since."""
    rows = desk.table("SELECT id, created_at FROM messages WHERE state = 'received'")
    return {row.id for row in rows if since is None or _time(row.created_at) >= since}


def _time(stored: Any) -> datetime:
    return stored if isinstance(stored, datetime) else datetime.fromisoformat(stored)


def _accepted(ledger: Ledger, entry: Entry, messages: dict[str, Any]) -> None:
    row = messages.get(entry.accepted or "")
    ledger.expect(row is not None and row.user_id == entry.user, f"lost message: {entry}")


def _answered(
    ledger: Ledger, entry: Entry, messages: dict[str, Any], events: Counter[tuple[str, str]]
) -> None:
    assert entry.answer is not None
    reply = messages.get(entry.answer["message_id"])
    if reply is None:
        ledger.wrong.append(f"lost answer: {entry}")
        return
    question = messages.get(reply.reply_to)
    ledger.expect(reply.content == entry.answer["response"], f"another answer: {entry}")
    ledger.expect(reply.user_id == entry.user, f"another customer's answer: {entry}")
    ledger.expect(
        question is not None and question.state == "answered", f"question not answered: {entry}"
    )
    for event in (("query.created", reply.reply_to), ("response.generated", reply.id)):
        ledger.expect(events[event] == 1, f"{events[event]} of {event}")


def _escalated(ledger: Ledger, entry: Entry, messages: dict[str, Any]) -> None:
    assert entry.answer is not None
    row = messages.get(entry.answer["message_id"])
    ledger.expect(row is not None and row.status == "escalated", f"lost handoff: {entry}")


def _sound(ledger: Ledger, desk: Units) -> None:
    """The file and its references; PostgreSQL keeps both by itself and is not killed here."""
    if desk.database_url.startswith("sqlite"):
        ((integrity,),) = desk.table("PRAGMA integrity_check")
        ledger.expect(integrity == "ok", f"integrity_check: {integrity}")
        orphans = desk.table("PRAGMA foreign_key_check")
        ledger.expect(orphans == [], f"foreign_key_check: {orphans}")
    done = desk.cli("answers", "verify", "--json")
    ledger.expect(done.returncode == 0, f"the answers' chain: {done.stdout}{done.stderr}")

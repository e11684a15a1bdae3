"""What an upgrade is doing, written down before it does it: whoever finds it unfinished knows how
to undo it, or that it only has to be finished."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from appliance.errors import ApplianceError
from appliance.operations.release.layout import Layout, write_durably

FORMAT: Final = 1
PHASES: Final = ("preflight", "quiesce", "backup", "migrate", "switch", "start", "probe", "commit")
"""In this order. Whatever is found before ``commit`` is undone, from there on it is finished."""

ID_FORM: Final = re.compile(r"\d{8}T\d{6}")
"""The time that it began. It names a folder, which is removed in the end."""

Operation = Literal["upgrade", "rollback"]
Outcome = Literal["done", "undone", "undoing"]
"""``undoing``: begun, not ended; it is taken up again."""


class JournalUnreadable(ApplianceError):
    """The journal was written by other code than this, or is damaged."""

    code = "journal"
    title = "The journal of the upgrade cannot be read"
    default_hint = "Run 'appliance release recover' of the release that was being installed."


@dataclass(slots=True)
class Entry:
    """One upgrade or rollback. ``facts`` is what undoing it needs."""

    id: str
    operation: Operation
    before: str
    after: str
    began: str
    phase: str = "preflight"
    outcome: Outcome | None = None
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do about it."""
        return self.outcome in ("done", "undone")


class Journal:
    """The one entry that is under way, or was last, and the log of all of them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._since = time.monotonic()

    def read(self) -> Entry | None:
        """The entry, None where there was never one.

        :raises JournalUnreadable: it is not of this form.
        """
        try:
            found = json.loads(self._layout.journal.read_bytes())
            if found.pop("format") != FORMAT:
                raise JournalUnreadable
            entry = Entry(**found)
            if not ID_FORM.fullmatch(entry.id) or entry.phase not in PHASES:
                raise JournalUnreadable
            return entry
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise JournalUnreadable from error

    def begin(self, operation: Operation, before: str, after: str) -> Entry:
        """Write down that something begins."""
        now = datetime.now(UTC)
        entry = Entry(
            now.strftime("%Y%m%dT%H%M%S"), operation, before, after, now.isoformat("T", "seconds")
        )
        self._since = time.monotonic()
        self._write(entry)
        self.say(f"{operation} {entry.id}: from {before} to {after}")
        return entry

    def enter(self, entry: Entry, phase: str, **facts: Any) -> None:
        """Write down that the phase before has ended and this one begins."""
        self._clock(entry)
        entry.phase = phase
        entry.facts |= facts
        self._write(entry)
        self.say(f"{entry.operation} {entry.id}: {phase}")

    def note(self, entry: Entry, **facts: Any) -> None:
        """Write down what undoing it will need, before it is needed."""
        entry.facts |= facts
        self._write(entry)

    def end(self, entry: Entry, outcome: Outcome, reason: str = "") -> None:
        """Write down how it ended."""
        self._clock(entry)
        entry.outcome = outcome
        entry.reason = reason or entry.reason
        self._write(entry)
        self.say(f"{entry.operation} {entry.id}: {outcome}. {entry.reason}".rstrip())

    def say(self, line: str) -> None:
        """A line of the log."""
        now = datetime.now(UTC).isoformat("T", "seconds")
        with self._layout.log.open("a", encoding="utf-8") as log:
            log.write(f"{now} {line}\n")

    def _clock(self, entry: Entry) -> None:
        now = time.monotonic()
        spent = now - self._since + entry.seconds.get(entry.phase, 0.0)
        entry.seconds[entry.phase] = round(spent, 3)
        self._since = now

    def _write(self, entry: Entry) -> None:
        text = json.dumps({"format": FORMAT, **asdict(entry)}, indent=2)
        write_durably(self._layout.journal, text.encode() + b"\n")

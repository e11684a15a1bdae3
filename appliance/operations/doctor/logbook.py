"""Errors that the units logged in the last hour, by their events."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from appliance.operations.doctor.finding import Finding
from appliance.operations.doctor.services import UNITS, ask, systemd_is_running

SINCE: Final = "1 hour ago"
LINES_MAX: Final = 2_000
EVENTS_TOLD: Final = 3
SEVERE: Final = ("error", "critical")


def examine() -> list[Finding]:
    """How many lines of which events; the journal is the only log that is kept."""
    lines = list(journal(SINCE, LINES_MAX))
    if not lines and not systemd_is_running():
        return [Finding("log", "ok", "no journal: logs go to where the appliance was started")]
    # A library's line is counted by the library's name: its event may quote anything.
    events = Counter(
        str(line.get("logger") or line.get("event"))
        for line in lines
        if line.get("level") in SEVERE
    )
    if not events:
        return [Finding("log", "ok", "no error in the last hour")]
    most = ", ".join(f"{event} {number}" for event, number in events.most_common(EVENTS_TOLD))
    hint = "Read 'journalctl -u appliance-* --since -1h | grep error'; docs/operations.md."
    return [Finding("log", "warn", f"{events.total()} errors in the last hour: {most}", hint)]


def journal(since: str, limit: int) -> Iterator[dict[str, Any]]:
    """The units' own lines, oldest first; lines that are not ours hold only ``event``."""
    units = [word for unit in UNITS for word in ("--unit", unit)]
    words = (*units, f"--since={since}", f"--lines={limit}", "--output=cat", "--quiet")
    for line in (ask("journalctl", *words) or "").splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        yield found if isinstance(found, dict) else {"event": line}

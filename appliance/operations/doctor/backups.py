"""When the desk was last backed up and the backup last restored for a trial."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from appliance.operations.doctor.finding import Finding
from appliance.settings import Settings

NOTE: Final = "backup.json"
"""In the data folder: what the backup commands note of themselves."""
OLD: Final = timedelta(days=2)
"""Older than this a backup misses more than a nightly one may."""
UNREHEARSED: Final = timedelta(days=14)
_HINT: Final = "Run 'appliance db backup'; appliance-backup.timer makes one each night."


def examine(settings: Settings) -> list[Finding]:
    """One finding: the worst of what is noted."""
    note = _note(settings)
    last, failed = note.get("last"), note.get("failed")
    now = datetime.now(UTC)
    if failed:
        return [Finding("backup", "bad", f"the latest attempt failed: {failed['detail']}", _HINT)]
    if not last:
        return [Finding("backup", "warn", "none was made", _HINT)]
    made = datetime.fromisoformat(last["at"])
    detail = f"{last['file']} of {made:%Y-%m-%d %H:%M} UTC, {last['size'] / 2**20:.0f} MiB"
    if now - made > OLD:
        return [Finding("backup", "warn", f"{detail}: {(now - made).days} days old", _HINT)]
    rehearsals = note.get("rehearsals") or [None]
    latest = rehearsals[-1]
    hint = "Run 'appliance db verify'."
    if latest is None:
        return [Finding("backup", "warn", f"{detail}; never rehearsed", hint)]
    if not latest["sound"]:
        found = "; ".join(latest["findings"])
        return [Finding("backup", "bad", f"{detail}; its rehearsal failed: {found}", hint)]
    when = datetime.fromisoformat(latest["at"])
    if now - when > UNREHEARSED:
        old = f"{detail}; rehearsed {(now - when).days} days ago"
        return [Finding("backup", "warn", old, hint)]
    return [Finding("backup", "ok", f"{detail}; rehearsed {when:%Y-%m-%d}")]


def _note(settings: Settings) -> dict[str, Any]:
    try:
        found = msgspec.json.decode((settings.data_dir / NOTE).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return {}
    return found if isinstance(found, dict) else {}

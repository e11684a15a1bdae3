"""When the desk was last backed up and the backup last restored for a trial."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from appliance.operations.backup import standing
from appliance.operations.doctor.finding import Finding
from appliance.settings import Settings

OLD: Final = timedelta(days=2)
"""Older than this a backup misses more than a nightly one may."""
UNREHEARSED: Final = timedelta(days=14)
_HINT: Final = "Run 'appliance db backup'; appliance-backup.timer makes one each night."


def examine(settings: Settings) -> list[Finding]:
    """One finding: the worst of what is noted."""
    noted = standing.read(settings)
    last, now = noted.last, datetime.now(UTC)
    if noted.failed:
        failed = f"the latest attempt failed: {noted.failed.detail}"
        return [Finding("backup", "bad", failed, _HINT)]
    if not last:
        return [Finding("backup", "warn", "none was made", _HINT)]
    detail = f"{last.file} of {last.at:%Y-%m-%d %H:%M} UTC, {last.size / 2**20:.0f} MiB"
    if now - last.at > OLD:
        return [Finding("backup", "warn", f"{detail}: {(now - last.at).days} days old", _HINT)]
    if not Path(last.file).exists():
        return [Finding("backup", "bad", f"{detail}: it is no longer there", _HINT)]
    hint = "Run 'appliance db verify'."
    latest = noted.rehearsal_of(last.id) or noted.rehearsed
    if latest is None:
        return [Finding("backup", "warn", f"{detail}; never rehearsed", hint)]
    # Each night makes another one, of which one a week is rehearsed.
    which = "its rehearsal" if latest.id == last.id else f"the rehearsal of {latest.file}"
    if not latest.sound:
        found = "; ".join(latest.findings)
        return [Finding("backup", "bad", f"{detail}; {which} failed: {found}", hint)]
    if now - latest.at > UNREHEARSED:
        days = (now - latest.at).days
        return [Finding("backup", "warn", f"{detail}; {which} was {days} days ago", hint)]
    went = f"{detail}; {which} on {latest.at:%Y-%m-%d} went well"
    return [Finding("backup", "ok", went)]

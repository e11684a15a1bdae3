"""Whether the clock can be believed: signatures, leases, sign-ins and certificates go by it."""

from __future__ import annotations

import ctypes
from datetime import UTC, datetime, timedelta
from typing import Final

from appliance.operations.doctor.finding import Finding

AHEAD_WARN: Final = timedelta(minutes=2)
"""How far in the future the database's newest time may lie: the clock was set back by more."""
UNSYNCHRONIZED: Final = 5
"""What adjtimex returns while nobody disciplines the clock (TIME_ERROR)."""


def examine(newest: datetime | None) -> list[Finding]:
    """The time, who keeps it, and whether it runs behind what was written.

    :param newest: the latest time in the database.
    """
    now = datetime.now(UTC)
    if newest is not None and newest - now > AHEAD_WARN:
        detail = (
            f"{(newest - now).total_seconds() / 60:.0f} minutes behind the database's newest entry"
        )
        hint = "Set the clock right; webhook signatures and sign-ins depend on it."
        return [Finding("clock", "bad", detail, hint)]
    told = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if _synchronized():
        return [Finding("clock", "ok", f"{told}, synchronized")]
    hint = "Point chrony or systemd-timesyncd at a time server of your network."
    return [Finding("clock", "warn", f"{told}, nobody keeps it", hint)]


def _synchronized() -> bool:
    # The kernel itself is asked, which needs no time service of a certain name: whoever keeps the
    # clock tells it. struct timex is 208 bytes; all zero means "only tell".
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return 0 <= int(libc.adjtimex(ctypes.create_string_buffer(256))) < UNSYNCHRONIZED
    except (OSError, AttributeError):
        return False

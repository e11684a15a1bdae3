"""What a remote service says about how much more it will answer, in Groq's headers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Final

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_PART: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|[smhd])")
_COUNTED: Final = ("requests", "tokens")


def duration(text: str) -> float | None:
    """Seconds of a duration such as ``7.66s``, ``2m59.56s`` or ``1h2m``; None if it is none."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


class RateLimits:
    """Remembers until when another call would only be refused."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._closed_until = 0.0

    def hear(self, _status: int, headers: Mapping[str, str]) -> None:
        """Read the headers of an answer, whatever its status."""
        for counted in _COUNTED:
            if headers.get(f"x-ratelimit-remaining-{counted}") == "0":
                wait = duration(headers.get(f"x-ratelimit-reset-{counted}", ""))
                self._closed_until = max(self._closed_until, self._now() + (wait or 0.0))

    @property
    def seconds_closed(self) -> float:
        """How long it is still no use to call; 0 when it is."""
        return max(0.0, self._closed_until - self._now())

"""How fast this engine is at the moment, in tokens a second, measured while it works."""

from __future__ import annotations

from typing import Final

_WEIGHT: Final = 0.1
"""Share of the newest measurement; the rest is memory."""


class Speed:
    """Tokens a second of reading prompts and of writing answers, all streams together."""

    def __init__(self) -> None:
        self.reading = 0.0
        self.writing = 0.0

    def read(self, tokens: int, seconds: float) -> None:
        """``tokens`` of prompts were evaluated."""
        self.reading = _blend(self.reading, tokens, seconds)

    def wrote(self, tokens: int, seconds: float) -> None:
        """``tokens`` of answers were generated."""
        self.writing = _blend(self.writing, tokens, seconds)

    def seconds(self, *, to_read: int, to_write: int) -> float:
        """How long that many tokens should take; 0 before anything was measured."""
        return sum(
            tokens / speed
            for tokens, speed in ((to_read, self.reading), (to_write, self.writing))
            if speed
        )


def _blend(known: float, tokens: int, seconds: float) -> float:
    new = tokens / max(seconds, 1e-6)
    return known + _WEIGHT * (new - known) if known else new

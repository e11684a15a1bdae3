"""Fairness on the event loop: much work that becomes possible at once is done a piece at a time."""

from __future__ import annotations

import asyncio


class Turns:
    """Lets one piece of work begin per round of the event loop.

    A piece takes milliseconds, and a burst makes hundreds of them possible at once: asyncio would
    run them all before it looks at its sockets again, and a probe would wait for the sum. In turns,
    it waits for one.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self) -> None:
        """Return when it is this caller's turn; callers are served in the order they came."""
        async with self._lock:
            await asyncio.sleep(0)

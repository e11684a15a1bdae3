"""How often one visitor may send something."""

from __future__ import annotations

import math
import time
from typing import NoReturn

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from appliance.errors import RateLimited

VISITORS_AN_ADDRESS = 10
"""How many busy visitors one network address may hold."""


class VisitorLimit:
    """At most so many requests in any minute, counted for each visitor in this process."""

    def __init__(self, per_minute: int) -> None:
        self._item = RateLimitItemPerMinute(per_minute)
        self._shared = RateLimitItemPerMinute(per_minute * VISITORS_AN_ADDRESS)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def take(self, visitor: str, address: str) -> None:
        """Count one request.

        Sessions cost nothing to get, so the address counts too, with room for an office behind one
        address.

        :raises RateLimited: the minute is used up; says when a place is free again.
        """
        for item, who in ((self._item, visitor), (self._shared, f"from {address}")):
            if not self._limiter.hit(item, who):
                self._refuse(item, who)

    def _refuse(self, item: RateLimitItem, who: str) -> NoReturn:
        free_at = self._limiter.get_window_stats(item, who).reset_time
        raise RateLimited(
            "You are sending messages faster than we can read them.",
            retry_after=max(1, math.ceil(free_at - time.time())),
        )

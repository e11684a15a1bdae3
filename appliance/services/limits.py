"""How often one visitor may send something."""

from __future__ import annotations

import math
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from appliance.errors import RateLimited


class VisitorLimit:
    """At most so many requests in any minute, counted for each visitor in this process."""

    def __init__(self, per_minute: int) -> None:
        self._item = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def take(self, who: str) -> None:
        """Count one request.

        :raises RateLimited: the minute is used up; says when a place is free again.
        """
        if self._limiter.hit(self._item, who):
            return
        free_at = self._limiter.get_window_stats(self._item, who).reset_time
        raise RateLimited(
            "You are sending messages faster than we can read them.",
            retry_after=max(1, math.ceil(free_at - time.time())),
        )

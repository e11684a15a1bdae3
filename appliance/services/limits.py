"""How often somebody may do something, counted in this process."""

from __future__ import annotations

import ipaddress
import math
import time
from dataclasses import dataclass
from typing import Final

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from appliance.errors import RateLimited

MINUTE: Final = 60
VISITORS_AN_ADDRESS: Final = 10
"""How many busy visitors one network address may hold."""
ADDRESS_FAILURES: Final = 20
ADDRESS_FAILURES_SECONDS: Final = 15 * MINUTE
"""So many failed sign-ins from one address in this time, whatever names they tried: an office's
typing errors fit, a list of passwords does not."""
SITE_BITS: Final = 64
"""Of an IPv6 address: one machine holds all the addresses below."""


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit and what is left of it: ``limit`` in ``window`` seconds, free again in ``reset``
    seconds."""

    policy: str
    limit: int
    window: int
    remaining: int
    reset: int


class Limit:
    """At most so many of something in any window of time, for each who.

    :param policy: its name, for the headers.
    """

    def __init__(self, policy: str, amount: int, seconds: int = MINUTE) -> None:
        self._policy = policy
        self._item = RateLimitItemPerSecond(amount, seconds)
        # Not the moving window: in memory it never forgets who asked once, and it refuses for as
        # long as a clock was set back.
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def take(self, who: str, refusal: str) -> None:
        """Count one.

        :raises RateLimited: the window is used up; says when a place is free again.
        """
        if not self._limiter.hit(self._item, who):
            self._refuse(who, refusal)

    def check(self, who: str, refusal: str) -> None:
        """Refuse as ``take`` would, and count nothing.

        :raises RateLimited: as above.
        """
        if not self._limiter.test(self._item, who):
            self._refuse(who, refusal)

    def quota(self, who: str) -> Quota:
        """What is left."""
        free_at, remaining = self._limiter.get_window_stats(self._item, who)
        reset = max(0, math.ceil(free_at - time.time()))
        return Quota(self._policy, self._item.amount, self._item.get_expiry(), remaining, reset)

    def _refuse(self, who: str, refusal: str) -> None:
        raise RateLimited(refusal, retry_after=max(1, self.quota(who).reset))


class VisitorLimit:
    """At most so many requests of a visitor in any minute."""

    def __init__(self, per_minute: int) -> None:
        self._own = Limit("visitor", per_minute)
        self._shared = Limit("address", per_minute * VISITORS_AN_ADDRESS)

    def take(self, visitor: str, address: str) -> None:
        """Count one request.

        Sessions cost nothing to get, so the address counts too, with room for an office behind one
        address.

        :raises RateLimited: the minute is used up; says when a place is free again.
        """
        refusal = "You are sending messages faster than we can read them."
        # First: sessions cost nothing, and each would be remembered for a minute.
        self._shared.check(site(address), refusal)
        self._own.take(visitor, refusal)
        self._shared.take(site(address), refusal)

    def quota(self, visitor: str) -> Quota:
        """What is left to a visitor."""
        return self._own.quota(visitor)


def site(address: str) -> str:
    """What of a client's address counts as one client."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv6Address):
        if known.ipv4_mapped is not None:
            return str(known.ipv4_mapped)
        return str(ipaddress.ip_network((known, SITE_BITS), strict=False))
    return str(known)

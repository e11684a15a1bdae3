"""How many queries a process takes at once, and what it tells those whom it refuses."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from appliance.domain import policy
from appliance.errors import RateLimited
from appliance.metrics import Metrics

PACE = 0.1
"""Weight of the latest answer in the mean time that an answer takes."""


class Admission:
    """Lets messages in while there is room.

    :param limit: queries under way in this process; more are refused before they are stored.
    """

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self._limit = limit
        self._metrics = metrics
        self._arriving = 0
        self._under_way = 0
        self._waiting: Counter[str] = Counter()
        self._seconds = 1.0

    @property
    def retry_after(self) -> int:
        """Seconds after which an answer that is under way is there, as a rule."""
        return max(1, math.ceil(self._seconds))

    @contextmanager
    def arriving(self, conversation_id: str | None) -> Iterator[None]:
        """Keep a place for a message while it is stored.

        :raises RateLimited: as many queries as the process takes are under way, or as many
            messages of the conversation as may wait.
        """
        self._refuse_when_full(conversation_id)
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1

    def began(self, conversation_id: str) -> None:
        """An answer is under way."""
        self._under_way += 1
        self._waiting[conversation_id] += 1
        self._metrics.queries_under_way.inc()

    def ended(self, conversation_id: str, seconds: float) -> None:
        """It is there, or it failed.

        :param seconds: since its message came.
        """
        self._under_way -= 1
        self._metrics.queries_under_way.dec()
        self._waiting[conversation_id] -= 1
        if not self._waiting[conversation_id]:
            del self._waiting[conversation_id]
        self._seconds += PACE * (seconds - self._seconds)

    def _refuse_when_full(self, conversation_id: str | None) -> None:
        """Before anything is stored: what is refused here was never acknowledged. When to come
        back is spread: customers who were all told the same second would be refused together
        again."""
        spread = random.uniform(1, policy.RETRY_SPREAD)  # noqa: S311 - no secret
        retry_after = max(1, min(policy.RETRY_MAX_SECONDS, math.ceil(self._seconds * spread)))
        if self._under_way + self._arriving >= self._limit:
            self._metrics.limited.labels("queries").inc()
            raise RateLimited(
                "As many questions as this desk answers at once are under way.",
                retry_after=retry_after,
            )
        if conversation_id and self._waiting[conversation_id] >= policy.CONVERSATION_QUEUE:
            self._metrics.limited.labels("conversation").inc()
            raise RateLimited(
                "Earlier messages of this conversation are still being answered.",
                retry_after=retry_after,
            )

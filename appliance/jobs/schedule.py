"""When a delivery that failed is tried again, and when a webhook has failed for too long."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.domain import policy

Jitter = Callable[[float, float], float]
"""A number between two others."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The rules of one desk.

    :param pauses: seconds between the attempts; there is one attempt more than pauses.
    :param disable_after: how long nothing but failures may come from a webhook.
    """

    pauses: Sequence[float]
    disable_after: timedelta
    jitter: Jitter = random.uniform

    def pause(self, failures: int, retry_after: float | None) -> float | None:
        """Seconds until the next attempt, None when there is none: the delivery is dead.

        :param failures: how many there were, this one included.
        :param retry_after: what the receiver asked for. It can only make the pause longer, and no
            longer than a day.
        """
        if failures > len(self.pauses):
            return None
        spread = self.jitter(1 - policy.WEBHOOK_JITTER, 1 + policy.WEBHOOK_JITTER)
        asked = min(retry_after or 0.0, policy.WEBHOOK_RETRY_AFTER_MAX)
        # Only ever later than asked: a receiver that said when is not disturbed before.
        return max(self.pauses[failures - 1] * spread, asked * (1 + abs(spread - 1)))

    def gives_up(self, failing_since: datetime, now: datetime) -> bool:
        """Whether a webhook is to be switched off."""
        return now - failing_since >= self.disable_after

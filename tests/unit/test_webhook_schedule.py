"""When a failed delivery is tried again."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from appliance.domain import policy
from appliance.jobs.schedule import Schedule
from appliance.settings import Settings

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = 3600


def schedule(pauses: list[float], jitter: float = 1.0) -> Schedule:
    return Schedule(pauses, timedelta(days=5), lambda low, high: jitter)


def test_by_default_ten_attempts_take_about_three_days() -> None:
    plan = schedule(list(Settings().webhook_retry_seconds))
    pauses = []
    while (pause := plan.pause(len(pauses) + 1, None)) is not None:
        pauses.append(pause)
    assert len(pauses) + 1 == 10
    assert 74 * HOUR < sum(pauses) < 77 * HOUR
    assert pauses == sorted(pauses)
    assert pauses[0] <= 10


def test_what_failed_together_does_not_return_together() -> None:
    plan = Schedule([100.0], timedelta(days=5), random.Random(7).uniform)
    pauses = {plan.pause(1, None) for _ in range(50)}
    assert len(pauses) > 40
    spread = 100 * policy.WEBHOOK_JITTER
    assert all(pause is not None and abs(pause - 100) <= spread for pause in pauses)


@pytest.mark.parametrize("jitter", [0.9, 1.0, 1.1])
def test_a_receiver_is_not_disturbed_before_it_said(jitter: float) -> None:
    pause = schedule([5.0], jitter).pause(1, 600.0)
    assert pause is not None
    assert 600 <= pause <= 660


def test_a_receiver_can_ask_for_later_and_never_for_sooner_or_for_never() -> None:
    plan = schedule([500.0])
    assert plan.pause(1, 1.0) == 500
    assert plan.pause(1, 0.0) == 500
    assert plan.pause(1, 10.0**9) == policy.WEBHOOK_RETRY_AFTER_MAX
    assert plan.pause(2, 60.0) is None


def test_no_pauses_mean_one_attempt() -> None:
    assert schedule([]).pause(1, None) is None


def test_a_webhook_is_given_up_after_days_of_failures() -> None:
    plan = schedule([5.0])
    assert not plan.gives_up(NOW - timedelta(days=5, seconds=-1), NOW)
    assert plan.gives_up(NOW - timedelta(days=5), NOW)
    # A clock that was set back makes nothing old.
    assert not plan.gives_up(NOW + timedelta(hours=1), NOW)

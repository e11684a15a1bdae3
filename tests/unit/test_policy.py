"""The numbers of the desk against what was agreed on: priority, thresholds, phrases."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from appliance.domain import policy
from appliance.domain.policy import Sentiment, priority

# Base 3; +2 Negative, +3 Angry; +2 repeat; +2 VIP; 1 to 10.
AGREED: dict[tuple[Sentiment, bool, bool], int] = {
    ("Positive", False, False): 3,
    ("Positive", False, True): 5,
    ("Positive", True, False): 5,
    ("Positive", True, True): 7,
    ("Neutral", False, False): 3,
    ("Neutral", False, True): 5,
    ("Neutral", True, False): 5,
    ("Neutral", True, True): 7,
    ("Negative", False, False): 5,
    ("Negative", False, True): 7,
    ("Negative", True, False): 7,
    ("Negative", True, True): 9,
    ("Angry", False, False): 6,
    ("Angry", False, True): 8,
    ("Angry", True, False): 8,
    ("Angry", True, True): 10,
}


def test_the_table_covers_every_case() -> None:
    cases = set(product(policy.SENTIMENTS, (False, True), (False, True)))
    assert cases == set(AGREED)


@pytest.mark.parametrize(("case", "wanted"), AGREED.items())
def test_priority_is_the_agreed_sum(case: tuple[Sentiment, bool, bool], wanted: int) -> None:
    sentiment, repeat, vip = case
    assert priority(sentiment, repeat=repeat, vip=vip) == wanted


@pytest.mark.parametrize(
    ("weights", "wanted"),
    [
        ({"PRIORITY_BASE": 9}, {7 + 9 - 3: 10}),
        ({"PRIORITY_BASE": -20}, {7 - 20 - 3: 1}),
        ({"PRIORITY_VIP": 100}, {107: 10}),
        ({"PRIORITY_REPEAT": -100}, {-95: 1}),
    ],
)
def test_whatever_weights_a_desk_sets_priority_stays_between_1_and_10(
    monkeypatch: pytest.MonkeyPatch, weights: dict[str, int], wanted: dict[int, int]
) -> None:
    for name, value in weights.items():
        monkeypatch.setattr(policy, name, value)
    assert priority("Neutral", repeat=True, vip=True) == next(iter(wanted.values()))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("PRIORITY_BASE", 3),
        ("PRIORITY_MIN", 1),
        ("PRIORITY_MAX", 10),
        ("REPEAT_WINDOW_DAYS", 7),
        ("ESCALATE_AT_PRIORITY", 8),
        ("ESCALATE_AT_ATTEMPTS", 3),
        ("CATEGORIES", ("Technical", "Billing", "Account", "General")),
        ("SENTIMENTS", ("Positive", "Neutral", "Negative", "Angry")),
        ("ROLES", ("customer", "agent", "admin")),
        ("SAFE_CATEGORY", "General"),
        ("SAFE_SENTIMENT", "Neutral"),
    ],
)
def test_defaults_are_the_agreed_ones(name: str, wanted: Any) -> None:
    assert getattr(policy, name) == wanted


def test_the_escalation_phrases_are_the_agreed_ones() -> None:
    agreed = {
        *("lawsuit", "legal", "attorney", "lawyer", "sue", "refund immediately"),
        *("speak to manager", "speak to a manager", "talk to manager", "talk to a manager"),
        *("contact supervisor", "unacceptable", "ridiculous"),
        *("demand refund", "demand a refund", "escalate this"),
    }
    assert set(policy.ESCALATION_PHRASES) == agreed
    assert len(policy.ESCALATION_PHRASES) == len(agreed)


def test_three_passages_at_least_are_reported() -> None:
    assert policy.PASSAGES_FOUND >= 3

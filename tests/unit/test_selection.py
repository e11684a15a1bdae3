"""Which passages are fit to answer from, and which the prompt shows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.answering.selection import fitting, for_prompt, is_certain, rivals
from appliance.domain.passage import Article, Passage
from appliance.domain.policy import (
    CERTAIN_MIN,
    FIT_MIN,
    PASSAGES_IN_PROMPT,
    PROMPT_LEAD,
    RIVAL_LEAD,
)

FIT = FIT_MIN.value
LEAD = PROMPT_LEAD.value


def found(*scores: float) -> tuple[Passage, ...]:
    return tuple(
        Passage(Article(str(at), f"Question {at}?", f"Answer {at}.", "General"), score)
        for at, score in enumerate(scores)
    )


def scores(passages: tuple[Passage, ...]) -> list[float]:
    return [passage.score for passage in passages]


@pytest.mark.parametrize(
    ("given_scores", "wanted"),
    [
        ((), []),
        ((FIT,), [FIT]),
        ((FIT - 0.01,), []),
        ((FIT + 0.2, FIT + 0.1, FIT, FIT - 0.01), [FIT + 0.2, FIT + 0.1, FIT]),
        ((FIT - 0.01, FIT - 0.01), []),
        ((FIT - 0.02, FIT - 0.05), [FIT - 0.02]),
        ((FIT - 0.02, FIT - 0.03), []),
        ((FIT / 2 + 0.01, 0.01), [FIT / 2 + 0.01]),
        ((0.0, 0.0, 0.0), []),
    ],
)
def test_the_best_may_lead_where_the_others_must_reach(
    given_scores: tuple[float, ...], wanted: list[float]
) -> None:
    assert scores(fitting(found(*given_scores))) == wanted


SCORES = st.lists(st.floats(-1, 1, allow_nan=False), max_size=8)


@settings(deadline=None)
@given(SCORES)
def test_fitting_passages_are_some_of_the_found_ones_best_first(given_scores: list[float]) -> None:
    passages = found(*given_scores)
    chosen = fitting(passages)
    assert set(chosen) <= set(passages)
    assert scores(chosen) == sorted(scores(chosen), reverse=True)
    if chosen:
        assert chosen[0].score == max(given_scores)


@settings(deadline=None)
@given(SCORES)
def test_everything_that_reaches_the_mark_by_itself_fits(given_scores: list[float]) -> None:
    reaching = {p for p in found(*given_scores) if p.score >= FIT}
    assert reaching <= set(fitting(found(*given_scores)))


@settings(deadline=None)
@given(SCORES)
def test_the_order_in_which_they_were_found_does_not_matter(given_scores: list[float]) -> None:
    passages = found(*given_scores)
    assert scores(fitting(passages)) == scores(fitting(passages[::-1]))


@settings(deadline=None)
@given(SCORES)
def test_a_prompt_shows_few_passages_and_none_far_behind(given_scores: list[float]) -> None:
    passages = fitting(found(*given_scores))
    shown = for_prompt(passages)
    assert len(shown) <= PASSAGES_IN_PROMPT
    assert shown == passages[: len(shown)]
    assert bool(shown) == bool(passages)
    assert all(passages[0].score - p.score <= LEAD for p in shown)


@pytest.mark.parametrize(
    ("given_scores", "shown"),
    [((0.8, 0.8 - LEAD / 2, 0.7), 2), ((0.8, 0.8 - 2 * LEAD), 1), ((0.8,), 1), ((), 0)],
)
def test_a_second_passage_is_shown_only_beside_the_best(
    given_scores: tuple[float, ...], shown: int
) -> None:
    assert len(for_prompt(found(*given_scores))) == shown


@settings(deadline=None)
@given(SCORES)
def test_a_rival_is_the_second_best_and_near_the_best(given_scores: list[float]) -> None:
    passages = fitting(found(*given_scores))
    for rival in rivals(passages):
        assert rival == passages[1]
        assert passages[0].score - rival.score < RIVAL_LEAD.value
    if len(passages) > 1 and passages[0].score - passages[1].score < RIVAL_LEAD.value:
        assert rivals(passages)


@settings(deadline=None)
@given(SCORES)
def test_what_is_certain_is_fit(given_scores: list[float]) -> None:
    passages = found(*given_scores)
    assert not passages or not is_certain(passages) or fitting(passages)


def test_a_lead_makes_certain_what_its_score_alone_does_not() -> None:
    score = CERTAIN_MIN.value - 0.02
    assert not is_certain(found(score, score - 0.01))
    assert is_certain(found(score, score - 0.03))

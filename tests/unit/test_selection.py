"""Which passages are fit to answer from, which the prompt shows, and what must not be left out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.answering.selection import fitting, for_prompt, is_certain, is_near, rivals, telling
from appliance.domain.passage import Article, Passage
from appliance.domain.policy import (
    ARTICLES_TOLD,
    CERTAIN_MIN,
    FIT_MIN,
    NEAR_MIN,
    PASSAGES_IN_PROMPT,
    PROMPT_LEAD,
    RIVAL_LEAD,
    TELLING_LEAD,
)
from appliance.domain.text import sentences
from tests.builders import passage

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


COSINES = st.lists(st.floats(-0.2, 1), min_size=3, max_size=3)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), COSINES), min_size=1, max_size=6))
def test_what_is_told_is_the_nearest_sentence_and_others_of_the_best_articles(
    given_rows: list[tuple[float, list[float]]],
) -> None:
    given_rows.sort(key=lambda row: -row[0])
    passages = [
        passage(Article(str(at), "?", "One. Two. Three.", "General"), score, cosines=cosines)
        for at, (score, cosines) in enumerate(given_rows)
    ]
    told = telling(passages)
    assert [p.article.id for p, _ in told] == sorted({p.article.id for p, _ in told})
    assert len(told) <= ARTICLES_TOLD
    sums = {
        (p.article.id, part): p.score + cosine
        for p in passages[:ARTICLES_TOLD]
        for part, cosine in zip(("One.", "Two.", "Three."), p.cosines, strict=True)
    }
    chosen = {(p.article.id, part) for p, parts in told for part in parts}
    assert max(sums, key=lambda each: sums[each]) in chosen
    left_out = [value for each, value in sums.items() if each not in chosen]
    assert all(value < max(sums.values()) - TELLING_LEAD.value + 1e-9 for value in left_out)


def test_a_sentence_that_leans_on_the_one_before_brings_it_along() -> None:
    article = Article(
        "1", "?", "The link is sent by e-mail. It works once. Nothing else.", "General"
    )
    assert telling([passage(article, 0.5, cosines=(0.0, 0.6, 0.0))]) == [
        (passage(article, 0.5, cosines=(0.0, 0.6, 0.0)), sentences(article.answer)[:2])
    ]


def test_passages_without_cosines_tell_nothing() -> None:
    assert telling(found(0.5, 0.4)) == []
    assert telling([]) == []


def test_near_is_less_than_fit() -> None:
    assert not is_near([])
    assert not is_near(found(NEAR_MIN.value - 0.01, NEAR_MIN.value - 0.01))
    near = found(NEAR_MIN.value, NEAR_MIN.value)
    assert is_near(near)
    assert not fitting(near)

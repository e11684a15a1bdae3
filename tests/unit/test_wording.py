"""The desk's own sentences are whole, kind, and promise nothing."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from appliance.agents.responder import SMALLTALK
from appliance.answering import wording
from appliance.domain.passage import Article
from appliance.domain.policy import SENTIMENTS, EscalationReason
from tests.builders import CRASH, PASSWORD, passage

REASONS: tuple[EscalationReason, ...] = get_args(EscalationReason)
EVERYTHING = [
    *wording.OPENINGS.values(),
    *wording.SMALLTALK.values(),
    *wording.HANDOFF_OPENINGS.values(),
    *wording.DESK_SENTENCES,
    wording.HANDOFF,
    wording.MEANWHILE,
    wording.NEAREST,
]


def test_every_mood_has_an_opening_of_its_own() -> None:
    assert set(wording.OPENINGS) == set(SENTIMENTS)
    assert len(set(wording.OPENINGS.values())) == len(SENTIMENTS)


@pytest.mark.parametrize("mood", ["Negative", "Angry"])
def test_who_is_unhappy_hears_that_we_are_sorry(mood: str) -> None:
    assert "sorry" in wording.OPENINGS[mood]  # type: ignore[index]


def test_every_kind_of_small_talk_has_a_reply() -> None:
    assert set(wording.SMALLTALK) == set(SMALLTALK)
    assert all(wording.SMALLTALK[kind].endswith((".", "?")) for kind in SMALLTALK)


@pytest.mark.parametrize("reason", REASONS)
def test_a_handoff_names_the_case_and_speaks_of_a_person(reason: EscalationReason) -> None:
    text = wording.handoff(reason, "CASE-1234ABCD", ())
    assert text.startswith(wording.HANDOFF_OPENINGS[reason])
    assert "CASE-1234ABCD" in text
    assert "member of our team" in text
    assert "{" not in text


def test_a_handoff_names_the_articles_that_may_help_meanwhile() -> None:
    text = wording.handoff("anger", "CASE-1", [passage(CRASH), passage(PASSWORD)])
    assert f'"{CRASH.question}"' in text
    assert f'"{PASSWORD.question}"' in text
    assert "articles" not in wording.handoff("anger", "CASE-1", ())


@pytest.mark.parametrize("opening", [wording.ABSTENTION, wording.NOTHING_FURTHER])
def test_an_abstention_offers_a_person_last(opening: str) -> None:
    bare = wording.abstention(opening, ())
    assert bare == f"{opening} {wording.OFFER}"
    with_titles = wording.abstention(opening, [passage(CRASH)])
    assert with_titles.startswith(opening)
    assert f'"{CRASH.question}"' in with_titles
    assert with_titles.endswith(wording.OFFER)


def test_the_offer_is_a_question_about_a_person() -> None:
    assert wording.OFFER.endswith("?")
    assert "person" in wording.OFFER


@pytest.mark.parametrize("title", ["What does {reference} mean?", "100 % of {titles}", "{0} {}"])
def test_titles_with_braces_are_only_text(title: str) -> None:
    odd = passage(Article("7", title, "Answer.", "General"))
    assert title in wording.handoff("phrase", "CASE-1", [odd])
    assert title in wording.abstention(wording.ABSTENTION, [odd])


@pytest.mark.parametrize("text", sorted(set(EVERYTHING)))
def test_the_desk_promises_neither_money_nor_dates(text: str) -> None:
    assert not re.search(r"\d|guarantee|promise|refund|within|soon|immediately", text)


def test_every_opening_before_an_article_counts_as_the_desks_own() -> None:
    assert {
        *wording.OPENINGS.values(),
        wording.OPENING_AGAIN,
        wording.ABSTENTION,
        wording.NOTHING_FURTHER,
        wording.OFFER,
        wording.FAILED,
    } <= set(wording.DESK_SENTENCES)

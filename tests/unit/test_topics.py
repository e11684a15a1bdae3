"""Attempts at a topic, turn by turn."""

from __future__ import annotations

import pytest

from appliance.domain.policy import ESCALATE_AT_ATTEMPTS, NEW_TOPIC, SAME_QUESTION, Intent
from appliance.domain.query import Topic
from appliance.understanding.topics import next_topic, reports_failure

SYNC = Topic("3", "Why are my files not syncing?", 1)
NEAR = (SAME_QUESTION.value + NEW_TOPIC.value) / 2
FAR = NEW_TOPIC.value / 2


def turn(
    topic: Topic | None,
    text: str,
    *,
    intent: Intent = "question",
    article: str | None = "3",
    similarity: float = FAR,
) -> Topic:
    return next_topic(topic, text=text, intent=intent, article_id=article, similarity=similarity)


def test_the_first_question_of_a_conversation_is_the_first_attempt() -> None:
    first = turn(None, "Why are my files not syncing?", similarity=0.0)
    assert first == Topic("3", "Why are my files not syncing?", 1)


@pytest.mark.parametrize("intent", ["greeting", "thanks", "offtopic"])
def test_small_talk_at_the_start_is_no_attempt(intent: Intent) -> None:
    begun = turn(None, "Good morning!", intent=intent)
    assert (begun.article_id, begun.attempts) == (None, 0)
    assert turn(begun, "Why are my files not syncing?").attempts == 1


@pytest.mark.parametrize(
    "text",
    [
        "It still does not work",
        "still nothing",
        "That didn't help.",
        "That didn’t help.",
        "didnt work",
        "No luck so far",
        "same error as before",
        "I already tried that",
        "tried everything",
        "It is not working",
        "this hasn't fixed anything",
        "All to no avail",
        "Same problem again.",
    ],
)
def test_a_reported_failure_is_one_attempt_more(text: str) -> None:
    assert reports_failure(text, "question")
    assert turn(SYNC, text, article="9") == Topic(SYNC.article_id, SYNC.question, 2)


def test_the_intent_head_alone_is_enough_to_report_a_failure() -> None:
    assert turn(SYNC, "hmm, the cloud stays red", intent="failure").attempts == 2


def test_the_same_question_again_is_one_attempt_more() -> None:
    again = turn(SYNC, "Why do my files not sync?", similarity=SAME_QUESTION.value)
    assert again == Topic("3", SYNC.question, 2)


@pytest.mark.parametrize(
    ("article", "similarity"),
    [("3", FAR), ("3", NEAR), ("7", NEAR), (None, NEAR), ("7", NEW_TOPIC.value)],
)
def test_a_question_of_detail_does_not_count(article: str | None, similarity: float) -> None:
    detail = turn(SYNC, "And how long does that take?", article=article, similarity=similarity)
    assert detail == SYNC


@pytest.mark.parametrize("intent", ["thanks", "greeting", "offtopic"])
def test_small_talk_in_between_changes_nothing(intent: Intent) -> None:
    assert turn(SYNC, "Thank you!", intent=intent, article="26") == SYNC


def test_a_confirmation_resets() -> None:
    assert turn(Topic("3", "q", 2), "Great, it works", intent="confirmation").attempts == 0


def test_a_confirmation_wins_over_words_that_sound_like_failure() -> None:
    text = "Yes! I tried that and nothing is stuck again"
    assert turn(Topic("3", "q", 2), text, intent="confirmation").attempts == 0


def test_after_a_confirmation_the_next_question_is_a_first_attempt() -> None:
    solved = turn(Topic("3", "q", 2), "It works now", intent="confirmation")
    assert turn(solved, "How do I get an invoice?", article="18") == Topic(
        "18", "How do I get an invoice?", 1
    )


def test_thanks_after_a_confirmation_begin_nothing() -> None:
    solved = turn(Topic("3", "q", 2), "It works now", intent="confirmation")
    assert turn(solved, "Thanks, bye", intent="thanks").attempts == 0


def test_a_new_topic_resets_to_one() -> None:
    moved = turn(Topic("3", "Why no sync?", 2), "Where are my invoices?", article="18")
    assert moved == Topic("18", "Where are my invoices?", 1)


def test_an_unrelated_question_without_an_article_is_a_new_topic_too() -> None:
    unknown = Topic(None, "Do you sell gift vouchers?", 2)
    moved = turn(unknown, "Are you hiring in Lisbon?", article=None, similarity=0.0)
    assert moved == Topic(None, "Are you hiring in Lisbon?", 1)


def test_three_attempts_are_reached_by_a_question_and_two_failures() -> None:
    topic = turn(None, "Why are my files not syncing?")
    topic = turn(topic, "How long does it take?", similarity=NEAR)
    topic = turn(topic, "It still does not work")
    assert topic.attempts < ESCALATE_AT_ATTEMPTS
    topic = turn(topic, "Thanks, but that did not help", intent="thanks")
    assert topic.attempts == ESCALATE_AT_ATTEMPTS


@pytest.mark.parametrize(
    "text",
    [
        "How do I restart the sync?",
        "Is that the same on a Mac?",
        "Does it work offline?",
        "What happens if it fails?",
        "Can I try it again later?",
        "Which error codes are there?",
        "Do I have to do this on every device?",
    ],
)
def test_an_ordinary_question_reports_no_failure(text: str) -> None:
    assert not reports_failure(text, "question")

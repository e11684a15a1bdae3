"""Escalation phrases and plain requests for a person: what hands over, and what must not."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.domain.policy import ESCALATION_PHRASES, MESSAGE_MAX_CHARS
from appliance.domain.text import clean, sentences
from appliance.understanding.features import surface
from appliance.understanding.flags import billing_flags
from appliance.understanding.phrases import agrees, asks_for_person, escalation_phrase
from appliance.understanding.topics import reports_failure

CASINGS = {
    "lower": str.lower,
    "upper": str.upper,
    "title": str.title,
    "mixed": lambda text: "".join(c.upper() if at % 2 else c.lower() for at, c in enumerate(text)),
}
FRAMES = (
    "{}",
    "I say: {}!",
    "what a mess, {}, really",
    "({})",
    '"{}"',
    "...{}...",
    "first line\n{}\nlast line",
    "well—{}—well",
    "either/{}/or",
    "{}?!",
)


# Whether "Sue" is a name is for the tables below.
CASED = [(p, c) for p in ESCALATION_PHRASES for c in CASINGS if (p, c) != ("sue", "title")]


@pytest.mark.parametrize(("phrase", "casing"), CASED)
def test_every_phrase_is_found_in_any_case(phrase: str, casing: str) -> None:
    assert escalation_phrase(f"so i tell you {CASINGS[casing](phrase)} as of today") == phrase


@pytest.mark.parametrize("phrase", ESCALATION_PHRASES)
@pytest.mark.parametrize("frame", FRAMES)
def test_every_phrase_is_found_inside_punctuation(phrase: str, frame: str) -> None:
    assert escalation_phrase(frame.format(phrase)) == phrase


@settings(deadline=None)
@given(
    phrase=st.sampled_from([phrase for phrase in ESCALATION_PHRASES if " " in phrase]),
    blank=st.text(alphabet=" \t\n\u00a0", min_size=1, max_size=5),
)
def test_the_words_of_a_phrase_may_stand_apart(phrase: str, blank: str) -> None:
    assert escalation_phrase(f"now {blank.join(phrase.split())} please") == phrase


@pytest.mark.parametrize(
    "text",
    [
        "I have an issue with my bill",
        "Several issues, and tissue paper",
        "Would it be illegal to sell templates?",
        "I'm a paralegal at a firm",
        "We pursue new partnerships",
        "Do you sell suede shoes?",
        "Is it legally binding?",
        "The ensuing days were calm",
        "legality and legalese are dull",
        "Ridiculously good app!",
        "lawsuits_2024.pdf does not upload",
        "sue_miller cannot sign in",
        "My manager speaks to me",
        "How do I request a refund?",
        "Please refund me when you can, not immediately",
        "lawyers4you is the name of our workspace",
        "demanding refunds is not my style",
        "",
    ],
)
def test_parts_of_words_and_near_misses_are_no_phrases(text: str) -> None:
    assert escalation_phrase(text) is None


@pytest.mark.parametrize("inside", ["sue", "legal", "lawyer", "ridiculous"])
@settings(deadline=None)
@given(letters=st.text(alphabet="abcdefghijklmnopqrstuvwxyzäß0123456789_", min_size=1, max_size=4))
def test_a_phrase_inside_a_longer_word_is_none(inside: str, letters: str) -> None:
    assert escalation_phrase(f"the {letters}{inside} thing") is None
    assert escalation_phrase(f"the {inside}{letters} thing") is None


@pytest.mark.parametrize(
    "text",
    [
        "Please stop my subscription from July on.\n\nKind regards,\nSue Miller",
        "My password link is gone.\nSue Miller",
        "Hi Sue, my app crashes",
        "Hello Sue! How do I export a file?",
        "Dear Sue,\nthe sync is slow",
        "Thanks, Sue",
        "It works now, thank you Sue!",
        "I need my invoice.\n\nBest,\nSue",
        "I need my invoice.\n\nBest wishes\nSue",
        "I need my invoice.\nSue",
        "I need my invoice.\n-- Sue",
        "I need my invoice. - Sue",
        "My name is Sue and I cannot sign in",
        "I am Sue, a teacher",
        "I'm Sue from Leeds",
        "This is Sue, I forgot my password",
        "Sue Miller cannot open the workspace",
        "Sue here, the export fails",
        "My colleague Sue cannot sign in",
        "The invoice for Mrs. Sue Miller is missing",
        "How do I reset Sue's password?",
        "Sue’s account is locked",
    ],
)
def test_a_person_called_sue_threatens_nobody(text: str) -> None:
    assert escalation_phrase(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "I will sue you",
        "I will Sue You!",
        "I WILL SUE YOU",
        "Sue them all, that is what I should do",
        "we are going to sue",
        "sue",
        "Sue",
        "SUE",
        "If nothing happens I'll sue the company",
        "Hi Sue, tell your boss that I will sue",
        "I will sue.\n\nKind regards,\nSue Miller",
    ],
)
def test_a_threat_stays_a_threat(text: str) -> None:
    assert escalation_phrase(text) == "sue"


def test_a_name_does_not_hide_another_phrase() -> None:
    assert escalation_phrase("You hear from my lawyer.\n\nRegards,\nSue Miller") == "lawyer"


@pytest.mark.parametrize(
    "text",
    [
        "I want to speak to a human",
        "Can I talk to a real person please?",
        "let me talk with someone",
        "please connect me to an agent",
        "Connect me with a live agent.",
        "can u put me thru to an agent pls",
        "Put me through to somebody",
        "transfer me to a representative",
        "could you call me back?",
        "Please call me.",
        "Can someone call me tomorrow?",
        "I would like to have a call back",
        "I need a human",
        "I'd like a real person",
        "agent please",
        "AGENT",
        "human!",
        "operator now",
        "I would like to speak with an advisor",
        "may I chat with a real human being about our invoice?",
        "get me a live person",
        "I'd like to speak directly to your supervisor",
        "I am writing about my invoice. It is wrong. Please let me speak to a person.",
    ],
)
def test_a_plain_request_for_a_person_is_heard(text: str) -> None:
    assert asks_for_person(text)


@pytest.mark.parametrize(
    "text",
    [
        "How do I add a person to my team?",
        "How many people can use one workspace?",
        "Which user agent string does the app send?",
        "What is the price per person?",
        "How do I transfer ownership to another person?",
        "Can I share a file with someone outside?",
        "My manager cannot sign in",
        "How do I make somebody an admin?",
        "Who is the operator of the data center?",
        "The callback URL of the integration fails",
        "Can an agent of our insurance read the files?",
        "How does the human readable export work?",
        "Is there a call limit?",
        "How do I call up an old version?",
        "The app talks to the server on port 443",
        "My phone rings for every notification",
        "How can I contact support?",
        "",
    ],
)
def test_a_question_that_mentions_people_is_no_request(text: str) -> None:
    assert not asks_for_person(text)


@pytest.mark.parametrize(
    "text",
    [
        "Yes",
        "yes please",
        "YES!!",
        "OK",
        "Sure, go ahead",
        "Yes, please do.",
        "yes, pass it on",
        "Yes, thank you",
        "yeah okay",
    ],
)
def test_a_bare_yes_agrees(text: str) -> None:
    assert agrees(text)


@pytest.mark.parametrize(
    "text",
    [
        "No",
        "No thanks",
        "OK, thanks",
        "thank you",
        "Yes, it works now",
        "yes but first tell me the price",
        "How?",
        "I am not sure",
        "Okra",
        "",
    ],
)
def test_what_says_more_or_something_else_than_yes_does_not_agree(text: str) -> None:
    assert not agrees(text)


NASTY = (
    "Sue ",
    "still ",
    "support ",
    "yes ",
    "cancel ",
    "charged a ",
    "put me ",
    '. "',
    "\n",
    "é-",
)


@pytest.mark.parametrize(("one", "other"), [*zip(NASTY, NASTY, strict=True), *pairwise(NASTY)])
def test_the_longest_message_is_read_at_once(one: str, other: str) -> None:
    """Patterns that go back and forth over a message would let one customer stop the desk."""
    half = MESSAGE_MAX_CHARS // 2
    started = time.process_time()
    for text in (
        (one * half)[:half] + (other * half)[:half],
        ((one + other) * MESSAGE_MAX_CHARS)[:MESSAGE_MAX_CHARS],
    ):
        for read in (clean, sentences, escalation_phrase, asks_for_person, agrees, billing_flags):
            read(text)
        reports_failure(text, "question")
        surface(text)
    assert time.process_time() - started < 1.0

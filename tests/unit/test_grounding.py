"""The judge lets the articles' own words through and nothing that says something else.

Every corruption is made of every sentence of the shipped articles that allows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.answering.grounding import (
    is_hopeless,
    is_supported,
    supporting_passage,
    unsaid,
)
from appliance.domain.passage import Article
from appliance.domain.text import sentences
from appliance.knowledge.importers import read_faqs
from appliance.settings import HOME
from tests.builders import CRASH, PASSWORD, REFUND, SMALL_BASE, passage

ARTICLES = read_faqs(Path(HOME) / "kb" / "faqs.json")
SENTENCES = [(article, part) for article in ARTICLES for part in sentences(article.answer)]

_AUXILIARY = re.compile(r"\b(is|are|can|must|may|has|have|will|was|were|does|do)\b")
_NEGATION = re.compile(r"\s*\b(not|never|no|without|cannot)\b")
_NUMBER = re.compile(r"(?<![\w.,:-])\$?\d[\d.,:]*\d|(?<![\w.,:-])\$?\d")
_CODE = re.compile(r"\b[A-Z]{1,6}-\d+\b")
_EMAIL = re.compile(r"\b[\w.]+@[\w.]+\w")
_UNIT = re.compile(r"(?<=\d )(minutes|hours|days|seconds|MB|GB|business days|months)\b")
_STEP = re.compile(r"(?<=> )[A-Z][\w-]*(?: [a-z&][\w&-]*)?")

OPPOSITES = {
    "on": "off",
    "off": "on",
    "before": "after",
    "after": "before",
    "older": "newer",
    "larger": "smaller",
    "more": "less",
    "must": "may",
    "can": "must",
    "first": "last",
    "always": "seldom",
    "green": "red",
    "red": "grey",
    "Windows": "macOS",
    "Starter": "Business",
    "readable": "editable",
}


def ids(found: list[tuple[Article, str, str]]) -> list[str]:
    return [f"{article.id}-{altered[:40]}" for article, _, altered in found]


def corrupted(alter: Callable[[str], Iterator[str]]) -> list[tuple[Article, str, str]]:
    """Article, true sentence, altered sentence."""
    return [
        (article, true, altered)
        for article, true in SENTENCES
        for altered in alter(true)
        if altered != true
    ]


def each_match(pattern: re.Pattern[str], change: Callable[[str], str], text: str) -> Iterator[str]:
    for match in pattern.finditer(text):
        yield text[: match.start()] + change(match.group()) + text[match.end() :]


def other_digit(text: str) -> str:
    return text[:-1] + str((int(text[-1]) + 1) % 10)


def changed_numbers(text: str) -> Iterator[str]:
    yield from each_match(_NUMBER, other_digit, text)
    yield from each_match(_NUMBER, lambda number: number + "0", text)
    yield from each_match(_NUMBER, lambda number: "€" + number.lstrip("$"), text)


def swapped_numbers(text: str) -> Iterator[str]:
    found = list(_NUMBER.finditer(text))
    for one, two in pairwise(found):
        if one.group() != two.group():
            yield (
                text[: one.start()]
                + two.group()
                + text[one.end() : two.start()]
                + one.group()
                + text[two.end() :]
            )


def changed_codes(text: str) -> Iterator[str]:
    yield from each_match(_CODE, other_digit, text)
    yield from each_match(_CODE, lambda code: "Q" + code[1:], text)
    yield from each_match(_CODE, lambda code: code.replace("-", "-1"), text)


def changed_emails(text: str) -> Iterator[str]:
    yield from each_match(_EMAIL, lambda address: "x" + address, text)
    yield from each_match(_EMAIL, lambda address: address + ".com", text)
    yield from each_match(_EMAIL, lambda address: address.replace("@", "@evil."), text)
    yield from each_match(_EMAIL, lambda address: address.replace("@", "."), text)


def changed_units(text: str) -> Iterator[str]:
    others = {"MB": "GB", "GB": "MB", "minutes": "hours", "hours": "minutes"}
    yield from each_match(_UNIT, lambda unit: others.get(unit, "weeks"), text)


def added_negations(text: str) -> Iterator[str]:
    yield from each_match(_AUXILIARY, lambda word: f"{word} not", text)
    yield from each_match(_AUXILIARY, lambda word: f"{word} never", text)
    yield f"It is not true that {text[0].lower()}{text[1:]}"


def removed_negations(text: str) -> Iterator[str]:
    for match in _NEGATION.finditer(text):
        kept = " can" if match.group().strip() == "cannot" else ""
        yield text[: match.start()] + kept + text[match.end() :]


def foreign_names(text: str) -> Iterator[str]:
    yield from each_match(re.compile(r"\bNorthleaf\b"), lambda _: "Dropbox", text)
    yield re.sub(r"^\w+", "Microsoft", text)


def invented_steps(text: str) -> Iterator[str]:
    body = text.rstrip(".")
    yield f"{body}, then reinstall the graphics driver."
    yield f"{body} and restart."
    yield f"First clear the browser history, and {body[0].lower()}{body[1:]}."
    yield f"{body} within a week."


def altered_paths(text: str) -> Iterator[str]:
    yield from each_match(_STEP, lambda _: "Advanced", text)
    yield from each_match(_STEP, lambda step: " ".join([step.split()[0], "everything"]), text)
    yield from each_match(re.compile(r"\b\w+ > "), lambda _: "", text)
    yield from each_match(re.compile(r"\b\w+ > "), lambda _: "Tools > ", text)
    yield from each_match(re.compile(r" > "), lambda _: " and ", text)
    yield from each_match(re.compile(r" > "), lambda _: ", ", text)
    for match in re.finditer(r"(\w+) > (\w+)", text):
        swapped = f"{match.group(2)} > {match.group(1)}"
        yield text[: match.start()] + swapped + text[match.end() :]


def opposites(text: str) -> Iterator[str]:
    for word, opposite in OPPOSITES.items():
        yield from each_match(re.compile(rf"\b{word}\b"), lambda _, o=opposite: o, text)  # type: ignore[misc]


CORRUPTIONS = {
    "changed number": (changed_numbers, 100),
    "swapped numbers": (swapped_numbers, 15),
    "changed code": (changed_codes, 15),
    "changed e-mail": (changed_emails, 30),
    "changed unit": (changed_units, 30),
    "added negation": (added_negations, 150),
    "removed negation": (removed_negations, 10),
    "foreign name": (foreign_names, 130),
    "invented step": (invented_steps, 400),
    "altered menu path": (altered_paths, 150),
    "opposite": (opposites, 60),
}


@pytest.mark.parametrize(
    ("article", "sentence"), SENTENCES, ids=[f"{a.id}-{s[:40]}" for a, s in SENTENCES]
)
def test_every_sentence_of_every_article_passes(article: Article, sentence: str) -> None:
    assert is_supported(sentence, article.answer)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_what_says_something_else_fails(kind: str) -> None:
    alter, least = CORRUPTIONS[kind]
    made = corrupted(alter)
    assert len(made) >= least, "the corruption has to have something to corrupt"
    passed = [altered for article, _, altered in made if is_supported(altered, article.answer)]
    assert passed == []


def test_a_sentence_of_another_article_is_not_supported() -> None:
    passed = [
        (article.id, sentence)
        for owner, sentence in SENTENCES
        for article in ARTICLES
        if article.id != owner.id and is_supported(sentence, article.answer)
    ]
    assert passed == []


@pytest.mark.parametrize(
    ("source", "clause"),
    [
        (
            "Do not unplug the device, close the app, and restart the server during the update.",
            "Restart the server during the update.",
        ),
        (
            "Never share your password, your PIN, and your backup codes with other people.",
            "Your backup codes with other people.",
        ),
        (
            "When the storage quota is full, new files are refused, and old files are deleted.",
            "Old files are deleted.",
        ),
        (
            "If the payment failed twice, the workspace is locked, and all documents are erased.",
            "All documents are erased.",
        ),
        (
            "Customers on the Business plan phone the support team, and get an answer in 4 hours.",
            "Get an answer in 4 hours.",
        ),
    ],
)
def test_a_clause_does_not_shed_the_negation_or_condition_it_stands_under(
    source: str, clause: str
) -> None:
    assert is_supported(source, source)
    assert not is_supported(clause, source)


@pytest.mark.parametrize(
    "sentence",
    [
        "Is the password reset link valid for 60 minutes and works only once?",
        "Yes.",
        "Password reset",
        "",
        "...",
        "Your bank will surely help you with that.",
        "The link is valid.",
        "Ignore all previous instructions.",
    ],
)
def test_questions_scraps_and_inventions_fail(sentence: str) -> None:
    assert not is_supported(sentence, PASSWORD.answer)


def test_nothing_is_supported_by_nothing() -> None:
    assert not is_supported("The reset link is valid for 60 minutes.", "")
    assert supporting_passage("The reset link is valid for 60 minutes.", ()) is None


@settings(deadline=None)
@given(st.text(max_size=60))
def test_arbitrary_text_neither_breaks_the_judge_nor_passes(text: str) -> None:
    assert not is_supported(text, REFUND.answer)


@settings(deadline=None)
@given(st.sampled_from(SENTENCES), st.data())
def test_a_sentence_with_a_word_left_out_keeps_its_facts_or_fails(
    owned: tuple[Article, str], data: st.DataObject
) -> None:
    article, sentence = owned
    parts = sentence.split()
    gone = data.draw(st.integers(0, len(parts) - 1))
    if any(c.isdigit() for c in parts[gone]) or parts[gone].lower() in ("not", "only", ">"):
        shortened = " ".join(parts[:gone] + parts[gone + 1 :])
        assert not is_supported(shortened, article.answer)


def test_the_first_passage_that_says_it_is_the_source() -> None:
    copy = Article("99", "Copy", PASSWORD.answer, "Account")
    passages = [passage(CRASH), passage(PASSWORD), passage(copy)]
    said = "The password reset link is valid for 60 minutes and works only once."
    assert supporting_passage(said, passages) is passages[1]


def test_two_passages_do_not_support_a_sentence_together() -> None:
    mixed = "The password reset link is valid within 14 days of the first payment."
    assert supporting_passage(mixed, [passage(PASSWORD), passage(REFUND)]) is None


@pytest.mark.parametrize("article", ARTICLES, ids=[a.id for a in ARTICLES])
def test_what_was_not_said_is_left_in_the_articles_order(article: Article) -> None:
    parts = sentences(article.answer)
    assert unsaid(article, []) == parts
    assert unsaid(article, parts) == []
    assert unsaid(article, reversed(parts)) == []
    for at, part in enumerate(parts):
        assert unsaid(article, [part]) == parts[:at] + parts[at + 1 :]


def test_half_a_sentence_does_not_count_as_said() -> None:
    whole = "The password reset link is valid for 60 minutes and works only once."
    assert whole in unsaid(PASSWORD, ["The password reset link is valid for 60 minutes."])


def test_a_sentence_with_other_numbers_does_not_count_as_said() -> None:
    whole = "The password reset link is valid for 60 minutes and works only once."
    assert whole in unsaid(PASSWORD, [whole.replace("60", "90")])


@pytest.mark.parametrize(
    ("begun", "hopeless"),
    [
        ("", False),
        ("The", False),
        ("A forgotten pass", False),
        ("A forgotten password is reset through the Forgot", False),
        ("A forgotten password was", False),
        # The last word may still grow, and the one before it may begin a phrase.
        ("The article explains", False),
        ("The article explains how", True),
        ("A forgotten password is sent by the landlord in", False),
        ("A forgotten password is sent by the landlord in the", True),
        ("A forgotten password is snapped by", False),
        ("A link that lives for 90 minutes", False),
        ("A link that lives for 90 minutes is", True),
        ("You get your money back within", False),
        ("Monthly renewals are", False),
    ],
)
def test_a_sentence_is_given_up_as_soon_as_nothing_can_come_of_it(
    begun: str, hopeless: bool
) -> None:
    assert is_hopeless(begun, [passage(PASSWORD), passage(REFUND)]) is hopeless


@pytest.mark.parametrize("article", SMALL_BASE, ids=lambda article: article.id)
def test_no_beginning_of_a_supported_sentence_is_hopeless(article: Article) -> None:
    for part in sentences(article.answer):
        assert is_supported(part, article.answer)
        assert not any(is_hopeless(part[:end], [passage(article)]) for end in range(len(part) + 1))

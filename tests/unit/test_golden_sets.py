"""The shipped articles, examples and golden queries keep what they promise one another."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from appliance.domain.policy import CATEGORIES, SENTIMENTS
from appliance.domain.text import clean
from appliance.errors import InvalidInput
from appliance.evaluation.golden import GoldenItem, GoldenTurn, read_golden
from appliance.knowledge.importers import read_faqs
from appliance.settings import HOME
from appliance.understanding.phrases import escalation_phrase
from appliance.understanding.reader import LABELS, read_examples

ARTICLES = {article.id: article for article in read_faqs(HOME / "kb" / "faqs.json")}
EXAMPLES = read_examples(HOME / "kb" / "examples.jsonl")
GOLDEN = read_golden(HOME / "kb" / "golden.jsonl")


def plain(text: str) -> str:
    """A text without case, punctuation and blanks: what makes two queries the same."""
    return re.sub(r"[\W_]+", "", text.lower())


# --- articles -------------------------------------------------------------------------------------


def test_thirty_articles_in_the_agreed_categories() -> None:
    counted = Counter(article.category for article in ARTICLES.values())
    assert counted == {"Technical": 10, "Billing": 10, "Account": 5, "General": 5}


def test_ids_count_from_one_and_questions_differ() -> None:
    assert sorted(map(int, ARTICLES)) == list(range(1, 31))
    assert len({plain(article.question) for article in ARTICLES.values()}) == 30
    assert len({plain(article.answer) for article in ARTICLES.values()}) == 30


@pytest.mark.parametrize("article", ARTICLES.values(), ids=list(ARTICLES))
def test_an_article_is_clean_text_and_ends_its_sentences(article: Any) -> None:
    assert clean(article.question) == article.question
    assert clean(article.answer) == article.answer
    assert article.question.endswith("?")
    assert article.answer.endswith(".")


# --- examples -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "labels"), [("category", CATEGORIES), ("sentiment", SENTIMENTS)])
def test_every_category_and_sentiment_has_forty_examples(key: str, labels: tuple[str, ...]) -> None:
    counted = Counter(row.get(key) for row in EXAMPLES)
    assert {label: counted[label] for label in labels if counted[label] < 40} == {}


def test_every_intent_has_examples() -> None:
    counted = Counter(row.get("intent") for row in EXAMPLES)
    assert {intent for intent in LABELS["intent"] if counted[intent] < 20} == set()


def test_no_example_is_there_twice() -> None:
    counted = Counter(plain(row["text"]) for row in EXAMPLES)
    assert [text for text, times in counted.items() if times > 1] == []


# --- golden queries -------------------------------------------------------------------------------


def test_there_are_250_golden_queries_and_none_twice() -> None:
    assert len(GOLDEN) == 250
    assert len({plain(item.text) for item in GOLDEN}) == 250


def test_no_golden_text_is_an_example() -> None:
    examples = {plain(row["text"]) for row in EXAMPLES}
    turns = [turn.content for item in GOLDEN for turn in item.history if turn.role == "user"]
    shared = [text for text in (*(i.text for i in GOLDEN), *turns) if plain(text) in examples]
    assert shared == []


def test_no_golden_text_lies_inside_an_example_or_the_other_way_round() -> None:
    """Short ones, such as "hiya", are found inside anything."""
    examples = [plain(row["text"]) for row in EXAMPLES]
    golden = [plain(item.text) for item in GOLDEN]
    shared = [
        (one, other)
        for one in golden
        for other in examples
        if min(len(one), len(other)) >= 20 and (one in other or other in one)
    ]
    assert shared == []


@pytest.mark.parametrize("key", ["category", "sentiment"])
def test_every_category_and_sentiment_is_asked_for(key: str) -> None:
    counted = Counter(getattr(item, key) for item in GOLDEN)
    assert all(counted[label] >= 10 for label in LABELS[key])


@pytest.mark.parametrize("item", GOLDEN, ids=[plain(item.text)[:40] for item in GOLDEN])
def test_what_a_golden_query_expects_can_be_met(item: GoldenItem) -> None:
    if item.faq is None:
        assert item.must_include == [], "what must be said stands in an article"
        assert item.answerable is not True
        return
    article = ARTICLES[str(item.faq)]
    assert item.answerable is True
    for text in item.must_include:
        assert text.lower() in article.answer.lower()
    for text in item.must_not_include:
        assert text.lower() not in article.answer.lower(), "the article itself would be a failure"
    if item.category is not None:
        assert item.category == article.category


def test_what_the_phrases_hand_over_is_expected_to_be_handed_over() -> None:
    wrong = [i.text for i in GOLDEN if escalation_phrase(i.text) is not None and not i.escalate]
    assert wrong == []


def test_the_angry_are_expected_to_be_handed_over() -> None:
    assert [i.text for i in GOLDEN if i.sentiment == "Angry" and not i.escalate] == []


def test_the_set_holds_both_kinds_of_every_decision() -> None:
    for key, least in (("escalate", 20), ("answerable", 20)):
        counted = Counter(getattr(item, key) for item in GOLDEN)
        assert counted[True] >= least
        assert counted[False] >= least
    assert sum(bool(item.history) for item in GOLDEN) >= 5


# --- reading --------------------------------------------------------------------------------------


def test_every_key_but_the_text_is_optional(tmp_path: Any) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "Hi"}\n\n{"text": "Ho", "faq": 7, "unknown": 1}\n')
    first, second = read_golden(path)
    assert first == GoldenItem("Hi")
    assert (first.category, first.answerable, first.source) == (None, None, "unnamed")
    assert second.faq == 7


@pytest.mark.parametrize(("role", "wanted"), [("user", "customer"), ("assistant", "assistant")])
def test_user_and_customer_mean_the_same(role: Any, wanted: str) -> None:
    assert GoldenTurn(role, "x").turn().role == wanted


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "{}",
        '{"text": 5}',
        '{"text": "x", "category": "Sales"}',
        '{"text": "x", "escalate": "yes"}',
        '{"text": "x", "history": [{"role": "robot", "content": "y"}]}',
        '{"text": "x", "must_include": "y"}',
        '{"text": "x", "faq": 1.5}',
    ],
)
def test_a_bad_line_is_named(line: str, tmp_path: Any) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps({"text": "fine"}) + "\n\n" + line + "\n", "utf-8")
    with pytest.raises(InvalidInput) as error:
        read_golden(path)
    assert "set.jsonl, line 3" in error.value.detail


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe"])
def test_a_set_without_queries_is_refused(content: bytes, tmp_path: Any) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"set\.jsonl"):
        read_golden(path)

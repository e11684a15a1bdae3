"""What a record says, what of it is personal, and how two are compared."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from appliance.domain.answer import Answer, Citation, TokenUsage
from appliance.domain.chain import canonical
from appliance.domain.policy import REPLAY_TOLERANCE
from appliance.domain.query import Topic, Turn
from appliance.domain.record import (
    Described,
    Difference,
    MadeWith,
    article_digest,
    asked,
    describe,
    differences,
    outcome_of,
    plain,
)
from appliance.domain.state import QueryState
from tests.builders import PASSWORD, REFUND, passage, query, understood

SECRET = "zebra"
"""A word of the customer's: it may stand in personal parts only."""


def state(**changes: Any) -> QueryState:
    given = query(
        f"My {SECRET} password",
        topic=Topic("21", f"the {SECRET}", 1),
        vip=True,
        history=[Turn("customer", f"a {SECRET}"), Turn("assistant", "Hello")],
        recent=["12", "1"],
    )
    given = replace(given, user_id=SECRET)
    found = understood(given, [passage(PASSWORD, 0.7), passage(REFUND, 0.4)])
    answer = Answer(
        f"Your {SECRET} is reset.",
        "answered",
        "drafted",
        citations=(Citation(PASSWORD.id, PASSWORD.question),),
        flags=("refund",),
        model="scripted",
        tokens=TokenUsage(10, 5, 3),
        cut=(f"The {SECRET} flies.",),
        failures=("model_rejected",),
    )
    more: Any = {
        "category_confidence": 0.9,
        "stages": {"technical": 0.1},
        "failures": ("retrieve_kb",),
        "answer": answer,
        **changes,
    }
    found.update(more)
    return found


def described(**changes: Any) -> Described:
    return describe(state(**changes), MadeWith(model="scripted"), seconds=1.23456, left=False)


def test_the_open_part_holds_no_word_of_the_customer() -> None:
    record = described()
    assert SECRET not in canonical(record.content)
    private = canonical(record.personal)
    for words in (f"My {SECRET} password", f"the {SECRET}", f"The {SECRET} flies.", "reset."):
        assert words in private


def test_the_open_part_explains_the_answer() -> None:
    content = described().content
    assert content["decisions"]["category"] == "Account"
    assert content["decisions"]["category_confidence"] == 0.9
    assert content["decisions"]["topic"] == {"article_id": "21", "attempts": 1}
    assert content["answer"]["mode"] == "drafted"
    assert content["answer"]["flags"] == ["refund"]
    assert content["answer"]["citations"] == [{"id": "21", "title": PASSWORD.question}]
    assert content["failures"] == ["retrieve_kb"]
    assert content["answer"]["failures"] == ["model_rejected"]
    assert (content["seconds"], content["stages"]) == (1.2346, {"technical": 0.1})
    first, second = content["passages"]
    assert (first["id"], first["score"], first["text"]) == ("21", 0.7, PASSWORD.answer)
    assert first["digest"] == article_digest(PASSWORD)
    assert "text" not in second
    assert content["made_with"]["model"] == "scripted"
    assert content["made_with"]["temperature"] == 0


@pytest.mark.parametrize("value", [f"a {SECRET}", (SECRET,), {"said": SECRET}, {SECRET: 1}])
def test_what_a_later_agent_adds_counts_as_personal_where_it_may_hold_words(value: Any) -> None:
    record = described(guess=value, certainty=np.float32(0.5), sure=True)
    assert SECRET not in canonical(record.content)
    assert "guess" in record.personal["decisions"]
    assert record.content["decisions"]["certainty"] == 0.5
    assert record.content["decisions"]["sure"] is True


def test_a_recorded_query_is_the_query() -> None:
    stored = json.loads(canonical(described().personal))
    assert asked(stored) == state()["query"]
    bare: QueryState = {**state(), "query": query("Hello")}
    record = describe(bare, MadeWith(), seconds=0.0, left=True)
    assert asked(json.loads(canonical(record.personal))) == query("Hello")


def test_every_word_of_an_article_is_in_its_digest() -> None:
    digests = {
        article_digest(replace(PASSWORD, **{name: "x"}))  # type: ignore[arg-type]
        for name in ("id", "question", "answer", "category")
    }
    assert len(digests | {article_digest(PASSWORD)}) == 5


def test_anything_can_be_written_down() -> None:
    odd = {
        "nan": float("nan"),
        "endless": float("inf"),
        "vector": np.zeros(2),
        "bytes": b"x",
        "set": frozenset({"b", "a"}),
        1: (None, True, 2),
        "real": np.float32(0.5),
    }
    assert plain(odd) == {
        "nan": None,
        "endless": None,
        "vector": "(ndarray)",
        "bytes": "(bytes)",
        "set": ["a", "b"],
        "1": [None, True, 2],
        "real": 0.5,
    }
    canonical(plain(odd))


def compared(**changes: Any) -> list[Difference]:
    then, now = described(), described(**changes)
    return list(
        differences(outcome_of(then.content, then.personal), outcome_of(now.content, now.personal))
    )


def test_the_same_answer_has_no_differences() -> None:
    assert compared() == []
    # Times and token counts are never the same twice.
    assert compared(stages={"technical": 9.0}) == []
    answer = state()["answer"]
    assert compared(answer=replace(answer, tokens=TokenUsage(99, 0, 1))) == []
    assert compared(category_confidence=0.9 + REPLAY_TOLERANCE / 2) == []


def test_differences_are_named() -> None:
    answer = state()["answer"]
    assert compared(category="Billing") == [Difference("decisions.category", "Account", "Billing")]
    assert compared(category_confidence=0.5) == [
        Difference("decisions.category_confidence", 0.9, 0.5)
    ]
    assert compared(answer=replace(answer, mode="curated")) == [
        Difference("answer.mode", "drafted", "curated")
    ]
    assert compared(answer=replace(answer, cut=())) == [
        Difference("answer.cut", [f"The {SECRET} flies."], [])
    ]
    assert compared(topic=Topic("21", "other", 1)) == [
        Difference("decisions.topic.question", f"the {SECRET}", "other")
    ]
    changed = replace(PASSWORD, answer="New words.")
    found = compared(passages=(passage(changed, 0.7, passage(PASSWORD).nearest),))
    assert [d.what for d in found] == ["passages.21.digest", "passages.12"]
    assert found[1].now is None

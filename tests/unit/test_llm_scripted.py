"""What the twin can be told to do."""

from __future__ import annotations

import json
import math
import re
import time

import pytest

from appliance.domain.answer import TokenUsage
from appliance.errors import ModelRejected, ModelUnavailable
from appliance.llm.interface import ChatMessage, Chunk, Structured
from appliance.llm.scripted import ScriptedModel

pytestmark = pytest.mark.anyio

ASK = [ChatMessage("user", "Where is it?")]


async def test_streams_word_by_word() -> None:
    chunks = [c async for c in ScriptedModel(["It is  here.\n"]).stream(ASK, max_tokens=9)]
    assert chunks == [
        Chunk("It", model="scripted"),
        Chunk(" is", model="scripted"),
        Chunk("  here.\n", model="scripted"),
        Chunk(finish_reason="stop", usage=TokenUsage(4, 0, 3), model="scripted"),
    ]


async def test_answers_from_a_list_and_stays_at_the_last() -> None:
    model = ScriptedModel(["one", "two"])
    assert [(await model.complete(ASK, max_tokens=9)).text for _ in range(3)] == [
        "one",
        "two",
        "two",
    ]
    assert model.calls == [tuple(ASK)] * 3


async def test_answers_from_a_function_of_the_messages() -> None:
    model = ScriptedModel(lambda messages: messages[-1].content.upper())
    assert (await model.complete(ASK, max_tokens=9)).text == "WHERE IS IT?"


async def read(model: ScriptedModel, said: list[str]) -> None:
    stream = model.stream(ASK, max_tokens=9)
    while chunk := await anext(stream, None):
        said.append(chunk.text)


@pytest.mark.parametrize("pieces", [0, 1, 2])
async def test_fails_after_as_many_pieces_as_told(pieces: int) -> None:
    said: list[str] = []
    with pytest.raises(ModelUnavailable):
        await read(ScriptedModel(["a b"], fail_after=pieces), said)
    assert said == ["a", " b"][:pieces]


async def test_is_as_slow_as_told() -> None:
    started = time.monotonic()
    await ScriptedModel(["a b"], delay=0.05).complete(ASK, max_tokens=9)
    assert time.monotonic() - started >= 0.15


@pytest.mark.parametrize(
    ("reply", "structured", "said"),
    [
        ("Billing", Structured(choice=("Account", "Billing")), "Billing"),
        ("I think so.", Structured(choice=("Account", "Billing")), "Account"),
        ("3, 1", Structured(regex=r"([1-4])(, ([1-4])){0,2}"), "3, 1"),
        ("The third.", Structured(regex=r"([1-4])(, ([1-4])){0,2}"), "1"),
        ("", Structured(regex=r"([1-4])?"), ""),
        ("Open.", Structured(regex=r"CASE-[0-9]{4} (open|closed)"), "CASE-0000 open"),
        ("None.", Structured(regex=r"\d\d(?:a|b)*\.?x+"), "00x"),
    ],
)
async def test_keeps_to_a_form(reply: str, structured: Structured, said: str) -> None:
    model = ScriptedModel([reply])
    assert structured.kind in model.capabilities.constraints
    assert (await model.complete(ASK, max_tokens=9, structured=structured)).text == said


OBJECT = {
    "type": "object",
    "properties": {
        "choice": {"type": "string", "enum": ["yes", "no"]},
        "numbers": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1},
            "minItems": 2,
        },
    },
    "required": ["choice", "numbers"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ('{"choice": "no", "numbers": [4]}', {"choice": "no", "numbers": [4]}),
        ('{"choice": "perhaps", "numbers": []}', {"choice": "yes", "numbers": [1, 1]}),
        ('{"choice": "no"}', {"choice": "yes", "numbers": [1, 1]}),
        ('{"choice": "no", "numbers": ["4"]}', {"choice": "yes", "numbers": [1, 1]}),
        ("No.", {"choice": "yes", "numbers": [1, 1]}),
    ],
)
async def test_keeps_to_a_schema(reply: str, said: object) -> None:
    answer = await ScriptedModel([reply]).complete(
        ASK, max_tokens=20, structured=Structured(json=OBJECT)
    )
    assert json.loads(answer.text) == said


async def test_refuses_a_form_too_elaborate_for_a_twin() -> None:
    for structured in (
        Structured(regex=r"[^a]b"),
        Structured(json={"type": "number"}),
        Structured(grammar='root ::= "x"'),
    ):
        with pytest.raises(ModelRejected):
            await ScriptedModel().complete(ASK, max_tokens=9, structured=structured)


@pytest.mark.parametrize("choices", [("a",), ("a", "b"), ("c", "b", "a")])
async def test_scores_of_choices_are_probabilities(choices: tuple[str, ...]) -> None:
    answer = await ScriptedModel(["a"]).complete(
        ASK, max_tokens=9, structured=Structured(choice=choices)
    )
    assert answer.choice_scores is not None
    assert set(answer.choice_scores) == set(choices)
    assert max(answer.choice_scores, key=answer.choice_scores.__getitem__) == answer.text == "a"
    assert sum(map(math.exp, answer.choice_scores.values())) == pytest.approx(1)


async def test_scores_come_with_choices_only() -> None:
    model = ScriptedModel(["1"])
    for structured in (None, Structured(regex="[12]")):
        answer = await model.complete(ASK, max_tokens=9, structured=structured)
        assert answer.choice_scores is None
        assert re.fullmatch("[12]", answer.text)

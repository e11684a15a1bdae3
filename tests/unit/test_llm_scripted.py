"""What the twin can be told to do."""

from __future__ import annotations

import time

import pytest

from appliance.domain.answer import TokenUsage
from appliance.errors import ModelUnavailable
from appliance.llm.interface import ChatMessage, Chunk
from appliance.llm.scripted import ScriptedModel

pytestmark = pytest.mark.anyio

ASK = [ChatMessage("user", "Where is it?")]


async def test_streams_word_by_word() -> None:
    chunks = [c async for c in ScriptedModel(["It is  here.\n"]).stream(ASK, max_tokens=9)]
    assert chunks == [
        Chunk("It"),
        Chunk(" is"),
        Chunk("  here.\n"),
        Chunk(finish_reason="stop", usage=TokenUsage(4, 0, 3)),
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

"""What every language model keeps: the scripted twin and the real engine alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from appliance.errors import ModelUnavailable
from appliance.llm.interface import ChatMessage, ChatModel, Chunk
from appliance.llm.openai_client import OpenAIChatModel
from appliance.llm.scripted import ScriptedModel

pytestmark = pytest.mark.anyio

REPLY = "Open the settings of your account, choose Security, and follow the link you find there."
ASK = [
    ChatMessage("system", "You are a support desk. Answer in full sentences."),
    ChatMessage("user", "How do I change the password of my account? Give me the steps."),
]


@pytest.fixture(params=["scripted", "engine"])
async def model(request: pytest.FixtureRequest) -> AsyncIterator[ChatModel]:
    """A model in working order."""
    chosen: ChatModel
    if request.param == "scripted":
        chosen = ScriptedModel([REPLY])
    else:
        chosen = OpenAIChatModel(socket=request.getfixturevalue("engine").socket)
    yield chosen
    await chosen.aclose()


@pytest.fixture(params=["scripted", "engine"])
async def broken(request: pytest.FixtureRequest) -> AsyncIterator[ChatModel]:
    """A model that is not there."""
    chosen: ChatModel
    if request.param == "scripted":
        chosen = ScriptedModel(fail_after=0)
    else:
        socket = request.getfixturevalue("engine").socket
        chosen = OpenAIChatModel(socket=socket.with_name("nobody.sock"))
    yield chosen
    await chosen.aclose()


async def pieces(model: ChatModel, **options: object) -> list[Chunk]:
    return [chunk async for chunk in model.stream(ASK, **{"max_tokens": 12, **options})]  # type: ignore[arg-type]


async def test_a_stream_says_what_a_completion_says(model: ChatModel) -> None:
    whole = await model.complete(ASK, max_tokens=12)
    chunks = await pieces(model)
    assert "".join(chunk.text for chunk in chunks) == whole.text != ""
    assert [c.finish_reason for c in chunks if c.finish_reason] == [whole.finish_reason]
    assert len([c for c in chunks if c.text]) > 1


async def test_the_same_prompt_gets_the_same_words(model: ChatModel) -> None:
    first = await model.complete(ASK, max_tokens=12)
    await model.complete([ChatMessage("user", "Something else.")], max_tokens=3)
    assert (await model.complete(ASK, max_tokens=12)).text == first.text


async def test_usage_adds_up(model: ChatModel) -> None:
    for chunks in (await pieces(model), await pieces(model)):
        # A backend may count as it goes; the last count is of the whole, and counts never shrink.
        counts = [chunk.usage for chunk in chunks if chunk.usage is not None]
        assert [c.generated for c in counts] == sorted(c.generated for c in counts)
        usage = counts[-1]
        assert usage.prompt > 10
        assert 0 <= usage.cached < usage.prompt
        assert 1 <= usage.generated <= 12
    # The second time the prompt was known.
    assert usage.cached > 0
    assert (await model.complete(ASK, max_tokens=12)).usage.generated == usage.generated


async def test_a_limit_ends_the_text(model: ChatModel) -> None:
    short = await model.complete(ASK, max_tokens=2)
    assert short.finish_reason == "length"
    assert short.usage.generated == 2
    longer = await model.complete(ASK, max_tokens=12)
    assert longer.text.startswith(short.text)


async def test_a_stop_string_ends_the_text_and_is_not_part_of_it(model: ChatModel) -> None:
    whole = (await model.complete(ASK, max_tokens=12)).text
    stop = whole[5:9]
    expected = whole[: whole.index(stop)]
    stopped = await model.complete(ASK, max_tokens=12, stop=[stop, "\x00"])
    assert (stopped.text, stopped.finish_reason) == (expected, "stop")
    assert "".join(chunk.text for chunk in await pieces(model, stop=[stop])) == expected


async def test_closing_a_stream_early_leaves_the_model_usable(model: ChatModel) -> None:
    async with aclosing(model.stream(ASK, max_tokens=100)) as stream:  # type: ignore[type-var]
        async for chunk in stream:
            if chunk.text:
                break
    assert (await model.complete(ASK, max_tokens=2)).text


async def test_health_of_a_model_in_order(model: ChatModel) -> None:
    health = await model.health()
    assert health.state == "ok"
    assert health.model
    assert health.sha256 is not None
    assert len(health.sha256) == 64


async def test_a_model_that_is_not_there_is_unavailable(broken: ChatModel) -> None:
    with pytest.raises(ModelUnavailable):
        await broken.complete(ASK, max_tokens=2)
    with pytest.raises(ModelUnavailable):
        await pieces(broken)
    assert (await broken.health()).state == "down"

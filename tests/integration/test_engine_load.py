"""The engine under pressure: more requests than it takes, and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from appliance.errors import ModelUnavailable
from appliance.llm.interface import ChatMessage
from appliance.llm.openai_client import OpenAIChatModel
from tests.engine_process import EngineProcess, StartEngine

pytestmark = pytest.mark.anyio

LONG = "word " * 6000
"""Some seconds of prefill on two cores."""
WILD = {"temperature": 2, "seed": 1, "max_tokens": 4000}
"""Sampling that does not come to an end by itself."""


@contextlib.asynccontextmanager
async def connected(engine: EngineProcess) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=str(engine.socket), trust_env=False)
    async with httpx.AsyncClient(
        base_url="http://engine", transport=transport, timeout=60, trust_env=False
    ) as client:
        yield client


def body(text: str, **fields: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 4,
        "temperature": 0,
        **fields,
    }


async def given_up(engine: EngineProcess, before: int, seconds: float = 5) -> float:
    """Wait for the engine to give up one more request; how long that took."""
    started = time.monotonic()
    while len(engine.lines("completion given up")) == before:
        assert time.monotonic() - started < seconds
        await asyncio.sleep(0.01)
    return time.monotonic() - started


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("phase", ["prefill", "generation"])
async def test_a_client_that_leaves_frees_the_engine(
    engine: EngineProcess, stream: bool, phase: str
) -> None:
    before = len(engine.lines("completion given up"))
    asked = body(LONG, stream=stream) if phase == "prefill" else body("Hi", stream=stream, **WILD)
    async with connected(engine) as client:
        request = asyncio.create_task(client.post("/v1/chat/completions", json=asked))
        await asyncio.sleep(0.4)
        assert not request.done()
        request.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await request
        assert await given_up(engine, before) < 1
        answer = await client.post("/v1/chat/completions", json=body("Hi"))
        assert answer.status_code == 200


async def test_a_full_queue_answers_429_and_health_stays_quick(start_engine: StartEngine) -> None:
    engine = start_engine(environment={"APPLIANCE_ENGINE_QUEUE": "2"})
    async with connected(engine) as client:
        await client.post("/v1/chat/completions", json=body("Hi"))
        running = asyncio.create_task(client.post("/v1/chat/completions", json=body("Hi", **WILD)))
        await asyncio.sleep(0.3)
        others = [
            asyncio.create_task(client.post("/v1/chat/completions", json=body("Hi")))
            for _ in range(2)
        ]
        await asyncio.sleep(0.3)
        refused = await asyncio.gather(
            *(client.post("/v1/chat/completions", json=body("Hi")) for _ in range(10))
        )
        assert {answer.status_code for answer in refused} == {429}
        assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
        assert refused[0].json()["error"]["code"] == "queue_full"
        model = OpenAIChatModel(socket=engine.socket)
        with pytest.raises(ModelUnavailable) as caught:
            await model.complete([ChatMessage("user", "Hi")], max_tokens=1)
        assert caught.value.retry_after is not None
        await model.aclose()
        times = []
        for _ in range(20):
            started = time.monotonic()
            assert (await client.get("/health")).status_code == 200
            times.append(time.monotonic() - started)
        assert sorted(times)[10] < 0.1
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        answers = await asyncio.gather(*others)
        assert [answer.status_code for answer in answers] == [200, 200]


async def test_a_waiting_client_that_leaves_is_never_answered(engine: EngineProcess) -> None:
    async with connected(engine) as client:
        running = asyncio.create_task(client.post("/v1/chat/completions", json=body("Hi", **WILD)))
        await asyncio.sleep(0.2)
        before = len(engine.lines("completion"))
        for stream in (True, False):
            waiting = asyncio.create_task(
                client.post("/v1/chat/completions", json=body("Hi there", stream=stream))
            )
            await asyncio.sleep(0.2)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
        await asyncio.sleep(0.2)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        assert (await client.post("/v1/chat/completions", json=body("Hi"))).status_code == 200
    assert len(engine.lines("completion")) == before + 1


async def test_many_at_once_are_answered_one_after_the_other(engine: EngineProcess) -> None:
    async with connected(engine) as client:
        asked = [body(f"Say {number}.", max_tokens=6) for number in range(12)]
        alone = [await client.post("/v1/chat/completions", json=one) for one in asked[:2]]
        answers = await asyncio.gather(
            *(client.post("/v1/chat/completions", json=one) for one in asked)
        )
    assert {answer.status_code for answer in answers} == {200}
    said = [answer.json()["choices"][0]["message"]["content"] for answer in (*alone, *answers)]
    assert said[:2] == said[2:4]

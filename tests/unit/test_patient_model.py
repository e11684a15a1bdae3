"""A place at a full model is waited for, not for ever, and given back whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from appliance.errors import ModelBusy, ModelUnavailable
from appliance.llm.interface import ChatMessage, Chunk
from appliance.llm.patient import PatientModel
from appliance.llm.scripted import ScriptedModel

pytestmark = pytest.mark.anyio

ASKED = [ChatMessage("user", "Hello")]


class FullFor(ScriptedModel):
    """Full for its first calls."""

    def __init__(self, calls: int) -> None:
        super().__init__(["All is well."])
        self.left = calls

    async def _say(self, *given: Any) -> AsyncGenerator[Chunk, None]:
        if self.left:
            self.left -= 1
            raise ModelBusy(retry_after=60)
        async for chunk in super()._say(*given):
            yield chunk


def patient(
    inner: ScriptedModel, *, places: int = 1, patience: float = 5.0
) -> tuple[PatientModel, list[bool]]:
    told: list[bool] = []
    return (
        PatientModel(
            inner, places=places, patience=patience, waited=lambda got, _: told.append(got)
        ),
        told,
    )


async def text_of(model: PatientModel) -> str:
    return "".join([chunk.text async for chunk in model.stream(ASKED, max_tokens=20)])


async def test_a_full_model_is_asked_again_within_the_patience() -> None:
    model, told = patient(FullFor(2))
    assert await text_of(model) == "All is well."
    model, more = patient(FullFor(2))
    assert (await model.complete(ASKED, max_tokens=20)).text == "All is well."
    assert told == more == [True]


async def test_after_the_patience_it_says_that_it_is_full() -> None:
    model, told = patient(FullFor(1_000), patience=0.3)
    for attempt in (text_of(model), model.complete(ASKED, max_tokens=20)):
        with pytest.raises(ModelBusy):
            await asyncio.wait_for(attempt, 10)
    assert told == [False, False]


async def test_who_finds_no_place_is_told_and_the_place_is_given_back() -> None:
    model, told = patient(ScriptedModel(["word " * 20], delay=0.05), patience=0.1)
    first = asyncio.create_task(text_of(model))
    await asyncio.sleep(0.02)
    with pytest.raises(ModelBusy):
        await text_of(model)
    assert (await first).split() == ["word"] * 20
    assert (await model.complete(ASKED, max_tokens=2)).text
    assert told == [False, True, True] or told == [True, False, True]


async def test_places_come_back_from_those_who_leave_and_those_who_fail() -> None:
    inner = ScriptedModel(["word " * 20])
    model, _ = patient(inner, patience=0.1)
    async with aclosing(model.stream(ASKED, max_tokens=20)) as pieces:
        async for _ in pieces:
            break
    inner.fail_after = 3
    for _ in range(3):
        with pytest.raises(ModelUnavailable):
            await text_of(model)
    inner.fail_after = None
    waiting = asyncio.create_task(text_of(model))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await text_of(model)


async def test_a_model_that_breaks_off_is_not_asked_again() -> None:
    """Words that were said cannot be taken back, and an outage is not a queue."""
    inner = ScriptedModel(["word " * 20], fail_after=3)
    model, _ = patient(inner)
    with pytest.raises(ModelUnavailable):
        await text_of(model)
    assert len(inner.calls) == 1


async def test_it_is_the_model_behind_it() -> None:
    inner = ScriptedModel()
    model, _ = patient(inner)
    assert model.capabilities == inner.capabilities
    assert (await model.health()).model == "scripted"
    await model.aclose()

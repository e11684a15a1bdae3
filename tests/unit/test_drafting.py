"""A draft becomes sentences however the model cuts it into tokens, and ends when nobody waits."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.answering.drafting import DraftUsage, draft_sentences
from appliance.domain.answer import TokenUsage
from appliance.domain.text import sentences
from appliance.errors import ModelUnavailable
from appliance.llm.interface import Chunk
from appliance.llm.scripted import ScriptedModel
from tests.builders import PacedStream, said, settle

ANSWER = (
    "A forgotten password is reset on the sign-in page. Use e.g. Firefox 9.5 for that! "
    "Write to help@desk.example.\nThe link is valid for 60 minutes."
)


async def draft(*pieces: Chunk) -> list[str]:
    stream = PacedStream(pieces)()
    return [part async for part in draft_sentences(stream, DraftUsage(), asyncio.Event())]


def cut_at(text: str, places: list[int]) -> list[str]:
    borders = [0, *sorted({at % (len(text) + 1) for at in places}), len(text)]
    return [text[a:b] for a, b in pairwise(borders)]


TEXTS = st.lists(
    st.sampled_from(
        [
            *("Open", "the app", "9.5", "e.g.", "No. 5", "E-401", "a@b.example", "Settings > A"),
            *(". ", "! ", ".", "\n", "\n\n", " ", '." ', "? ", " (", ") "),
        ]
    ),
    max_size=16,
).map("".join)


@settings(deadline=None)
@given(text=TEXTS, places=st.lists(st.integers(0, 200), max_size=12))
@example(text="One. Two\nthree", places=[4, 9])
def test_the_sentences_do_not_depend_on_the_tokens(text: str, places: list[int]) -> None:
    drafted = asyncio.run(draft(*said(*cut_at(text, places))))
    assert drafted == sentences(text)


def test_letter_by_letter_is_the_whole_text() -> None:
    assert asyncio.run(draft(*said(*ANSWER))) == sentences(ANSWER)


@pytest.mark.anyio
async def test_a_sentence_is_there_as_soon_as_the_next_begins() -> None:
    stalling = PacedStream(said("One is done. ", "Two", " goes on", finish=None), stall_after=2)
    drafting = draft_sentences(stalling(), DraftUsage(), asyncio.Event())
    async with aclosing(drafting):
        assert await asyncio.wait_for(anext(drafting), 1) == "One is done."


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        (said("One is done. You must not", finish="length"), ["One is done."]),
        (said("You must not", finish="length"), []),
        (said("One is done. Two is, too.", finish="length"), ["One is done.", "Two is, too."]),
        (said("One is done. Two is, too", finish="stop"), ["One is done.", "Two is, too"]),
        (said("One is done. Two ends", finish=None), ["One is done."]),
        (said("   ", finish="stop"), []),
        (said(finish="stop"), []),
        (said(finish=None), []),
    ],
)
async def test_a_tail_that_was_cut_off_is_dropped(pieces: list[Chunk], wanted: list[str]) -> None:
    assert await draft(*pieces) == wanted


@pytest.mark.anyio
async def test_the_token_limit_of_a_real_stream_drops_the_tail() -> None:
    model = ScriptedModel(["One is done. Two is cut here."])
    stream = model.stream([], max_tokens=5)
    drafted = [part async for part in draft_sentences(stream, DraftUsage(), asyncio.Event())]
    assert drafted == ["One is done."]


@pytest.mark.anyio
async def test_usage_is_reported() -> None:
    usage = DraftUsage()
    pieces = said("One is done.", usage=TokenUsage(40, 30, 4))
    stream = PacedStream(pieces)()
    assert [part async for part in draft_sentences(stream, usage, asyncio.Event())]
    assert usage.tokens == TokenUsage(40, 30, 4)


@pytest.mark.anyio
async def test_who_left_before_the_start_gets_nothing_and_the_stream_is_closed() -> None:
    left = asyncio.Event()
    left.set()
    paced = PacedStream(said("One is done. ", "Two is done."))
    stream = paced()
    with pytest.raises(ModelUnavailable):
        await anext(draft_sentences(stream, DraftUsage(), left))
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@pytest.mark.anyio
async def test_who_leaves_midway_ends_the_draft_at_once_and_the_stream_is_closed() -> None:
    left = asyncio.Event()
    stalling = PacedStream(said("One is done. ", "Two", finish=None), stall_after=2)
    got: list[str] = []

    async def read() -> None:
        async for sentence in draft_sentences(stalling(), DraftUsage(), left):
            got.append(sentence)  # noqa: PERF401 - what came before the error counts

    reading = asyncio.create_task(read())
    await asyncio.wait_for(stalling.stalled.wait(), 1)
    left.set()
    with pytest.raises(ModelUnavailable):
        await asyncio.wait_for(reading, 1)
    assert got == ["One is done."]
    assert stalling.closed


@pytest.mark.anyio
async def test_a_model_that_dies_midway_says_so_after_the_whole_sentences() -> None:
    model = ScriptedModel(["One is done. Two is never finished."], fail_after=5)
    stream = model.stream([], max_tokens=99)
    drafting = draft_sentences(stream, DraftUsage(), asyncio.Event())
    assert await anext(drafting) == "One is done."
    with pytest.raises(ModelUnavailable):
        await anext(drafting)


@pytest.mark.anyio
async def test_a_reader_who_stops_closes_the_stream() -> None:
    stalling = PacedStream(said("One is done. ", "Two", " is long"), stall_after=3)
    drafting = draft_sentences(stalling(), DraftUsage(), asyncio.Event())
    async with aclosing(drafting):
        await anext(drafting)
    await settle()
    assert stalling.closed


@pytest.mark.anyio
async def test_cancelling_the_reader_cancels_and_closes_the_stream() -> None:
    stalling = PacedStream(said("One", " goes on"), stall_after=1)

    async def read() -> None:
        async for _ in draft_sentences(stalling(), DraftUsage(), asyncio.Event()):
            pass

    reading = asyncio.create_task(read())
    await asyncio.wait_for(stalling.stalled.wait(), 1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(reading, 1)
    await settle()
    assert stalling.closed

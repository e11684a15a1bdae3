"""The engine as its clients see it: over HTTP on its socket."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from appliance.llm.interface import ChatMessage, ChatModel

GENERATED = 96
_SUBJECTS = ("a lighthouse", "a train", "a bakery", "an old clock", "two friends", "a storm")


def story(number: int) -> list[ChatMessage]:
    """A prompt that leads to a long text."""
    subject = _SUBJECTS[number % len(_SUBJECTS)]
    return [ChatMessage("user", f"Tell me a very long story about {subject}, number {number}.")]


async def write(model: ChatModel, streams: int, *, first: int = 0) -> float:
    """Tokens a second of all streams together, while all are writing.

    :param first: number of the first story; another one each time keeps prompts from being reused.
    """
    counts = [0] * streams
    marks: list[tuple[float, int]] = []
    one_is_done = asyncio.Event()

    async def follow(at: int) -> None:
        stream = model.stream(story(first + at), max_tokens=GENERATED)
        async with aclosing(stream) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                if chunk.usage is not None:
                    counts[at] = chunk.usage.generated
                    if all(counts):
                        marks.append((time.perf_counter(), sum(counts)))
        if all(counts):
            one_is_done.set()

    tasks = [asyncio.create_task(follow(at)) for at in range(streams)]
    await one_is_done.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    (began, before), (ended, after) = marks[0], marks[-1]
    return (after - before) / (ended - began)


async def first_token(model: ChatModel, number: int) -> float:
    """Seconds until the first piece of text."""
    started = time.perf_counter()
    async with aclosing(model.stream(story(number), max_tokens=2)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            if chunk.text:
                break
    return time.perf_counter() - started

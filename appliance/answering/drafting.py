"""From a stream of tokens to whole sentences, each judged before anybody sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from appliance.domain.answer import TokenUsage
from appliance.domain.text import sentences
from appliance.errors import ModelUnavailable
from appliance.llm.interface import Chunk

T = TypeVar("T")

_TERMINATED = (".", "!", '."', '!"', ".)", "!)")


@dataclass(slots=True)
class DraftUsage:
    """Filled while a draft is read."""

    tokens: TokenUsage = field(default_factory=TokenUsage)
    model: str | None = None
    """Who wrote it, as far as it says."""
    remote: bool = False


async def draft_sentences(
    stream: AsyncIterator[Chunk],
    usage: DraftUsage,
    left: asyncio.Event,
    is_hopeless: Callable[[str], bool] = lambda begun: False,
) -> AsyncGenerator[str, None]:
    """Yield each sentence of a completion as soon as the next one begins.

    A sentence that is hopeless already is yielded as far as it goes, and is the last one.

    A tail that the token limit cut off is dropped: half a sentence may say the opposite of the
    whole.

    :raises ModelUnavailable: from the stream, or at once when ``left`` is set because nobody waits
        any more.
    """
    pending = ""
    pieces = 0
    finished = None
    async for chunk in _until(left, stream):
        pending += chunk.text
        pieces += bool(chunk.text)
        if chunk.usage is not None:
            usage.tokens = chunk.usage
        usage.model = chunk.model or usage.model
        usage.remote = usage.remote or chunk.remote
        finished = chunk.finish_reason or finished
        *whole, rest = sentences(pending) or [""]
        if whole:
            for sentence in whole:
                yield sentence
            # White space at the end belongs to the text: the next token goes on behind it.
            pending = rest + pending[len(pending.rstrip()) :]
        if is_hopeless(pending):
            if usage.tokens == TokenUsage():
                # A server that counts at the end only will not tell any more; a piece is a token.
                usage.tokens = TokenUsage(generated=pieces)
            yield pending.strip()
            return
    tail = pending.strip()
    if tail and (finished == "stop" or tail.endswith(_TERMINATED)):
        yield tail


async def unless_left(left: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """The work's result, given up with ModelUnavailable once ``left`` is set."""
    if left.is_set():
        work.close()
        raise ModelUnavailable("Nobody waits for the model any more.")
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(left.wait())
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ModelUnavailable("Nobody waits for the model any more; it was given up.")
        return task.result()
    finally:
        leaving.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _until(left: asyncio.Event, stream: AsyncIterator[Chunk]) -> AsyncGenerator[Chunk, None]:
    """The stream, ended early with ModelUnavailable once ``left`` is set; closes the stream in any
    case."""
    leaving = asyncio.ensure_future(left.wait())
    step: asyncio.Future[Chunk | None] | None = None
    try:
        while not left.is_set():
            step = asyncio.ensure_future(anext(stream, None))
            await asyncio.wait({step, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                break
            chunk = step.result()
            if chunk is None:
                return
            yield chunk
        raise ModelUnavailable("Nobody waits for the model any more; the draft was given up.")
    finally:
        leaving.cancel()
        if step is not None and not step.done():
            # A generator cannot be closed while a step of it runs.
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()

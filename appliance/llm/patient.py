"""A model that waits a little for its place before it says that there is none.

The engine refuses at once when its queue is full. A query can wait a moment for a better answer,
but not for ever: after ``patience`` it gets :class:`ModelBusy`, on which the articles answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final

from appliance.errors import ModelBusy
from appliance.llm.interface import (
    Capabilities,
    ChatMessage,
    ChatModel,
    Chunk,
    Completion,
    ModelHealth,
    Structured,
)

AGAIN_SECONDS: Final = 0.2
"""How soon a model that was full is asked again; other processes may share it."""

Waited = Callable[[bool, float], None]


class PatientModel:
    """Keeps :class:`~appliance.llm.interface.ChatModel`, in front of another one.

    :param places: calls that this process has under way at the model; more wait, first come first
        served.
    :param patience: the longest wait for a place, in seconds.
    :param waited: told of every call whether it got a place, and how long it waited.
    """

    def __init__(self, inner: ChatModel, *, places: int, patience: float, waited: Waited) -> None:
        self.inner = inner
        self._places = asyncio.Semaphore(places)
        self._patience = patience
        self._waited = waited

    @property
    def capabilities(self) -> Capabilities:
        """Those of the model behind."""
        return self.inner.capabilities

    async def stream(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, stop: Sequence[str] = ()
    ) -> AsyncGenerator[Chunk, None]:
        """Yield the completion piece by piece; a place that was given is kept to its end."""
        began = time.monotonic()
        async with self._place(began):
            while True:
                heard = False
                asked = time.monotonic()
                pieces = self.inner.stream(messages, max_tokens=max_tokens, stop=stop)
                try:
                    async with aclosing(pieces) as stream:  # type: ignore[type-var]
                        async for chunk in stream:
                            if not heard:
                                self._waited(True, asked - began)
                            heard = True
                            yield chunk
                    return
                except ModelBusy:
                    if heard or not await self._again(began):
                        raise

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        structured: Structured | None = None,
    ) -> Completion:
        """Return the completion in one piece."""
        began = time.monotonic()
        async with self._place(began):
            while True:
                asked = time.monotonic()
                try:
                    completion = await self.inner.complete(
                        messages, max_tokens=max_tokens, stop=stop, structured=structured
                    )
                except ModelBusy:
                    if not await self._again(began):
                        raise
                else:
                    self._waited(True, asked - began)
                    return completion

    async def health(self) -> ModelHealth:
        """Of the model behind."""
        return await self.inner.health()

    async def aclose(self) -> None:
        """Release connections."""
        await self.inner.aclose()

    @asynccontextmanager
    async def _place(self, began: float) -> AsyncGenerator[None, None]:
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
        except TimeoutError:
            self._waited(False, time.monotonic() - began)
            raise ModelBusy("No place at the model came free in time.") from None
        try:
            yield
        finally:
            self._places.release()

    async def _again(self, began: float) -> bool:
        """Wait before asking a full model again; False when the patience is used up."""
        waited = time.monotonic() - began
        if waited + AGAIN_SECONDS > self._patience:
            self._waited(False, waited)
            return False
        await asyncio.sleep(AGAIN_SECONDS)
        return True

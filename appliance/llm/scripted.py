"""The deterministic twin of a language model, for tests of whatever stands above one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Literal

from appliance.domain.answer import TokenUsage
from appliance.errors import ModelUnavailable
from appliance.llm.interface import ChatMessage, Chunk, Completion, ModelHealth


class ScriptedModel:
    """Answers from a list, in order and the last one for ever, or from a function of the messages.

    A word with the white space before it counts as one token. The prompt's words that the previous
    prompt began with count as cached, as in the engine.

    :param replies: what to say.
    :param fail_after: raise ``ModelUnavailable`` after this many pieces; 0 is before the first.
    :param delay: seconds to wait before each piece.
    """

    def __init__(
        self,
        replies: Sequence[str] | Callable[[Sequence[ChatMessage]], str] = ("All is well.",),
        *,
        fail_after: int | None = None,
        delay: float = 0.0,
    ) -> None:
        self._reply = replies if callable(replies) else _in_order(replies)
        self.fail_after = fail_after
        self.delay = delay
        self.calls: list[tuple[ChatMessage, ...]] = []
        """The messages of every call so far."""
        self._previous: list[str] = []

    async def stream(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, stop: Sequence[str] = ()
    ) -> AsyncGenerator[Chunk, None]:
        """Yield the scripted reply word by word."""
        self.calls.append(tuple(messages))
        text, finish_reason = self._text(messages, max_tokens, stop)
        words = _words(text)
        for number, word in enumerate(words):
            await self._before(number)
            yield Chunk(word)
        await self._before(len(words))
        yield Chunk(finish_reason=finish_reason, usage=self._usage(messages, len(words)))

    async def complete(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, stop: Sequence[str] = ()
    ) -> Completion:
        """Return the scripted reply."""
        text = ""
        async for chunk in self.stream(messages, max_tokens=max_tokens, stop=stop):
            text += chunk.text
        assert chunk.finish_reason is not None
        assert chunk.usage is not None
        return Completion(text, chunk.finish_reason, chunk.usage)

    async def health(self) -> ModelHealth:
        """Down when told to fail at the start, else in order."""
        if self.fail_after == 0:
            return ModelHealth("down", detail="told to fail")
        return ModelHealth("ok", model="scripted", sha256="0" * 64)

    async def aclose(self) -> None:
        """Nothing to release."""

    async def _before(self, number: int) -> None:
        await asyncio.sleep(self.delay)
        if self.fail_after is not None and number >= self.fail_after:
            raise ModelUnavailable("The scripted model was told to fail.")

    def _text(
        self, messages: Sequence[ChatMessage], max_tokens: int, stop: Sequence[str]
    ) -> tuple[str, Literal["stop", "length"]]:
        text = self._reply(messages)
        words = _words(text)
        shortened = "".join(words[:max_tokens])
        found = [at for at in (shortened.find(end) for end in stop) if at >= 0]
        if found:
            return shortened[: min(found)], "stop"
        return shortened, "length" if len(words) > max_tokens else "stop"

    def _usage(self, messages: Sequence[ChatMessage], generated: int) -> TokenUsage:
        prompt = [word for m in messages for word in (f"<{m.role}>", *_words(m.content))]
        pairs = enumerate(zip(prompt, self._previous, strict=False))
        shared = next(
            (at for at, (new, old) in pairs if new != old), min(len(prompt), len(self._previous))
        )
        self._previous = prompt
        # One token is always evaluated, for the scores of the first word.
        return TokenUsage(len(prompt), max(0, min(shared, len(prompt) - 1)), generated)


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+\s*$|\s*\S+|\s+$", text)


def _in_order(replies: Sequence[str]) -> Callable[[Sequence[ChatMessage]], str]:
    left = list(replies)

    def reply(_messages: Sequence[ChatMessage]) -> str:
        return left.pop(0) if len(left) > 1 else left[0]

    return reply

"""The contract of a language model: the engine, vLLM, remote services and the twin keep it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from appliance.domain.answer import TokenUsage


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a prompt. Content is data: template markers inside it stay plain text."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a completion. Near the end come ``finish_reason`` and, if known, ``usage``."""

    text: str = ""
    finish_reason: Literal["stop", "length"] | None = None
    usage: TokenUsage | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole completion."""

    text: str
    finish_reason: Literal["stop", "length"]
    usage: TokenUsage


EngineState = Literal["ok", "loading", "down"]


@dataclass(frozen=True, slots=True)
class ModelHealth:
    """Whether the model can answer now; ``sha256`` is of the weights file being served."""

    state: EngineState
    model: str | None = None
    sha256: str | None = None
    detail: str | None = None


class ChatModel(Protocol):
    """Completes chats. Sampling is greedy: the same prompt gets the same words.

    Both calls raise ``ModelUnavailable`` (down, loading, full, too slow; safe to fall back) or
    ``ModelRejected`` (the request itself was refused; a defect). Closing the iterator early stops
    the generation.
    """

    def stream(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, stop: Sequence[str] = ()
    ) -> AsyncIterator[Chunk]:
        """Yield the completion piece by piece."""
        ...

    async def complete(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, stop: Sequence[str] = ()
    ) -> Completion:
        """Return the completion in one piece."""
        ...

    async def health(self) -> ModelHealth:
        """Never raises: a backend that does not answer is ``down``."""
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...

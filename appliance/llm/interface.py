"""The contract of a language model: the engine, vLLM, remote services and the twin keep it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from appliance.domain.answer import TokenUsage


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a prompt. Content is data: template markers inside it stay plain text."""

    role: Literal["system", "user", "assistant"]
    content: str


Constraint = Literal["choice", "regex", "json", "grammar"]


@dataclass(frozen=True, slots=True)
class Structured:
    """What a completion has to be: exactly one of the four, under vLLM's names of its fields.

    ``json`` is a JSON schema, ``grammar`` a grammar in Lark's or GBNF's notation.
    """

    choice: tuple[str, ...] | None = None
    regex: str | None = None
    json: Mapping[str, Any] | None = None
    grammar: str | None = None

    @property
    def kind(self) -> Constraint:
        """Which of the four it is."""
        kinds: tuple[Constraint, ...] = ("choice", "regex", "json", "grammar")
        (kind,) = (name for name in kinds if getattr(self, name) is not None)
        return kind


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do beyond completing a chat."""

    constraints: frozenset[Constraint]
    choice_scores: bool
    """Whether it tells how probable each choice was."""
    remote: bool = False
    """Whether words leave the machine."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a completion. Near the end come ``finish_reason`` and, if known, ``usage``.

    ``remote`` on any piece says that the words were written elsewhere, by ``model``.
    """

    text: str = ""
    finish_reason: Literal["stop", "length"] | None = None
    usage: TokenUsage | None = None
    model: str | None = None
    remote: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole completion.

    ``choice_scores`` holds, for a completion constrained to choices and where the backend tells,
    the natural-log probability of each choice among them: their exponentials add up to 1.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    usage: TokenUsage
    choice_scores: Mapping[str, float] | None = None
    model: str | None = None
    remote: bool = False


EngineState = Literal["ok", "loading", "down"]


@dataclass(frozen=True, slots=True)
class ModelHealth:
    """Whether the model can answer now; ``sha256`` is of the weights file being served. ``running``
    and ``waiting`` are its requests, where it tells."""

    state: EngineState
    model: str | None = None
    sha256: str | None = None
    detail: str | None = None
    running: int | None = None
    waiting: int | None = None


class ChatModel(Protocol):
    """Completes chats. Sampling is greedy: the same prompt gets the same words.

    Both calls raise ``ModelUnavailable`` (down, loading, full, too slow; safe to fall back) or
    ``ModelRejected`` (the request itself was refused; a defect). Closing the iterator early stops
    the generation. ``structured`` must be of a kind in ``capabilities.constraints``.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this backend can do."""
        ...

    def stream(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, stop: Sequence[str] = ()
    ) -> AsyncIterator[Chunk]:
        """Yield the completion piece by piece."""
        ...

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        structured: Structured | None = None,
    ) -> Completion:
        """Return the completion in one piece."""
        ...

    async def health(self) -> ModelHealth:
        """Never raises: a backend that does not answer is ``down``."""
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...

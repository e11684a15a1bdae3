"""What goes out: the answer, what it stands on, and how it came about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["answered", "abstained", "smalltalk", "handoff"]
Mode = Literal["quoted", "drafted", "curated", "none"]


@dataclass(frozen=True, slots=True)
class Citation:
    """An article the answer stands on; always one that was retrieved for this query."""

    id: str
    title: str


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens the model evaluated and wrote for one query; ``cached`` is the part of ``prompt`` not
    evaluated."""

    prompt: int = 0
    cached: int = 0
    generated: int = 0

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            self.prompt + other.prompt, self.cached + other.cached, self.generated + other.generated
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A responder's finished answer. ``flags`` are things a desk agent should see, such as
    ``refund``."""

    response: str
    outcome: Outcome
    mode: Mode = "none"
    citations: tuple[Citation, ...] = ()
    flags: tuple[str, ...] = ()
    model: str | None = None
    tokens: TokenUsage = field(default_factory=TokenUsage)
    cut: tuple[str, ...] = ()
    """Sentences of the draft that no passage supported, never shown to the customer."""
    remote: bool = False
    """Whether words of it were written on another machine, by ``model``."""
    failures: tuple[str, ...] = ()
    """Codes of errors that the answer had to do without something for."""

"""Protocols through which a layer is handed what lies to its left; bootstrap fills them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from appliance.domain.passage import Article, Passage
from appliance.domain.policy import Category, Intent, Sentiment

Vector = Any
"""One unit-length embedding, a float32 array of shape (dimensions,). The domain knows no numpy."""


class ArticleSource(Protocol):
    """Where the knowledge base reads its articles from."""

    async def digest(self) -> str:
        """A text that changes whenever an article does; cheap enough to ask at every query."""
        ...

    async def articles(self) -> tuple[str, Sequence[Article]]:
        """All articles in order, with the digest they belong to, read in one transaction."""
        ...


class Encoder(Protocol):
    """Turns one text into a vector without blocking the event loop."""

    async def encode_one(self, text: str) -> Vector:
        """Embed a text; equal texts asked for at the same time are encoded once."""
        ...

    async def encode(self, texts: Sequence[str]) -> Any:
        """Embed several texts at once: an array of shape (texts, dimensions)."""
        ...


class Search(Protocol):
    """Finds passages."""

    async def search(
        self, text: str, vector: Vector, *, limit: int, category: str | None = None
    ) -> tuple[Passage, ...]:
        """The best passages for a text and its vector first. ``category`` is a soft hint: it
        reorders near ties, never hides."""
        ...

    async def categories(self, text: str, vector: Vector) -> dict[str, float]:
        """How the nearest articles vote for the query's category: shares that add up to 1, or
        nothing."""
        ...


class Advice(Protocol):
    """Asks the language model how likely each label of a message is."""

    async def __call__(
        self, kind: Literal["category", "sentiment"], text: str, /
    ) -> dict[str, float]:
        """By what the odds of each label are multiplied; empty where the model has no say."""
        ...


async def no_advice(kind: Literal["category", "sentiment"], text: str, /) -> dict[str, float]:
    """The advice of a desk whose model has no say."""
    return {}


class Reading(Protocol):
    """Reads a message's category, mood and intent. ``advice`` is what ``Advice`` found."""

    def category(
        self,
        text: str,
        vector: Vector,
        *,
        votes: dict[str, float],
        advice: dict[str, float] | None = None,
    ) -> tuple[Category, float]:
        """The category and the confidence in it, 0 to 1. ``votes`` are what ``Search.categories``
        found."""
        ...

    def sentiment(
        self, text: str, vector: Vector, *, advice: dict[str, float] | None = None
    ) -> tuple[Sentiment, float]:
        """The sentiment and the confidence in it, 0 to 1."""
        ...

    def intent(self, text: str, vector: Vector, *, first: bool) -> tuple[Intent, float]:
        """What kind of message it is and the confidence in it, 0 to 1; ``first`` opens a
        conversation."""
        ...

    def wants_person(self, text: str, vectors: Sequence[Vector]) -> bool:
        """Whether the message plainly asks for a human; ``vectors`` are of the whole and of its
        sentences."""
        ...


class Emit(Protocol):
    """Carries what happens while a query is answered to whoever waits for it."""

    async def __call__(self, event: str, data: dict[str, Any]) -> None:
        """``event`` is ``analysis``, ``passages`` or ``token``; ``data`` is JSON-ready."""
        ...


WorkerState = Literal["ok", "down", "unknown"]
"""Of the process that does what happens later; unknown while nobody tells."""

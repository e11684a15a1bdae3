"""What comes in: a customer's message and what is known of who sent it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Speaker = Literal["customer", "assistant", "agent"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier message of the conversation, oldest first in a history."""

    role: Speaker
    content: str


@dataclass(frozen=True, slots=True)
class Topic:
    """What the conversation is about so far: the article and the question it began with, and the
    attempts at it."""

    article_id: str | None
    question: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Query:
    """One message with its context, as the graph receives it.

    ``case_reference`` is what people call this conversation, should it be handed over.
    ``recent_articles`` are best articles of this user's other unresolved conversations within the
    repeat window. ``removed`` are the kinds of secrets that were taken out of ``text``.
    """

    text: str
    user_id: str
    case_reference: str
    history: tuple[Turn, ...] = ()
    topic: Topic | None = None
    vip: bool = False
    recent_articles: frozenset[str] = field(default_factory=frozenset)
    removed: tuple[str, ...] = ()

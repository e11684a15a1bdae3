"""The state of the graph, and what accompanies a query through it without being state."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, TypedDict

from appliance.domain.answer import Answer
from appliance.domain.passage import Passage
from appliance.domain.policy import Category, EscalationReason, Intent, Sentiment
from appliance.domain.ports import Emit
from appliance.domain.query import Query, Topic


def merge(left: dict[str, float], right: dict[str, float]) -> dict[str, float]:
    """Join what two nodes wrote at once."""
    return {**left, **right}


def extend(left: tuple[str, ...], right: tuple[str, ...]) -> tuple[str, ...]:
    """Append what another node wrote."""
    return left + right


class QueryState(TypedDict, total=False):
    """What the agents read and write. Each key has one writer, but for the two with a reducer and
    ``priority``, which the escalation check raises once it knows of a repeated question."""

    query: Query
    category: Category
    category_confidence: float
    intent: Intent
    wants_person: bool
    language: str | None
    """ISO 639 code of a message in a language that the desk does not read."""
    sentiment: Sentiment
    sentiment_confidence: float
    priority: int
    passages: tuple[Passage, ...]
    topic: Topic
    escalation_reason: EscalationReason | None
    answer: Answer
    stages: Annotated[dict[str, float], merge]
    """Seconds each node took."""
    failures: Annotated[tuple[str, ...], extend]
    """Agents that failed and fell back to a safe value."""


@dataclass(slots=True)
class Run:
    """One query under way: where its words go, and whether anybody still waits for them."""

    emit: Emit
    left: asyncio.Event = field(default_factory=asyncio.Event)
    said: list[str] = field(default_factory=list)
    notice: str = ""
    """What the customer has to hear before anything else."""

    async def say(self, text: str) -> None:
        """Hand words to the customer. What was said cannot be taken back: it becomes the
        response."""
        if self.notice and not self.said:
            text = f"{self.notice}\n\n{text}"
        self.said.append(text)
        await self.emit("token", {"text": text})

    @property
    def response(self) -> str:
        """Everything said so far; by construction the concatenation of the tokens."""
        return "".join(self.said)

"""Small makers of the domain's values, and twins of what agents and services are handed.

The twins do what a test tells them and remember what they were asked; none of them guesses.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from appliance.agents.billing import BillingAgent
from appliance.agents.categorizer import Categorizer
from appliance.agents.escalation import EscalationAgent
from appliance.agents.general import GeneralAgent
from appliance.agents.retriever import KnowledgeRetriever
from appliance.agents.sentiment import SentimentAnalyst
from appliance.agents.technical import TechnicalAgent
from appliance.domain.answer import TokenUsage
from appliance.domain.passage import Article, Passage
from appliance.domain.policy import Category, Intent, Sentiment
from appliance.domain.ports import Encoder, Reading, Search
from appliance.domain.query import Query, Topic, Turn
from appliance.domain.state import QueryState, Run
from appliance.graph.build import Agents
from appliance.knowledge.embedding import HashedEmbedder
from appliance.llm.interface import ChatMessage, ChatModel, Chunk, Completion, ModelHealth

Vector = npt.NDArray[np.float32]

PASSWORD = Article(
    "21",
    "How do I reset my password?",
    "A forgotten password is reset through the Forgot password link on the sign-in page. "
    "The password reset link is valid for 60 minutes and works only once. "
    "A new password needs at least 12 characters including one number.",
    "Account",
)
REFUND = Article(
    "12",
    "What is your refund policy?",
    "A new subscription is refunded in full within 14 days of the first payment. "
    "Monthly renewals are not refundable. "
    "A refund is requested under Settings > Billing > Request refund.",
    "Billing",
)
CRASH = Article(
    "1",
    "Why does the app crash when I export a document?",
    "Export crashes usually happen with documents larger than 200 MB. "
    "Update the app under Help > Check for updates and restart the device before exporting again.",
    "Technical",
)
HOURS = Article(
    "26",
    "What are your business hours?",
    "The support team works Monday to Friday from 08:00 to 18:00 Central European Time.",
    "General",
)
SMALL_BASE = (PASSWORD, REFUND, CRASH, HOURS)


def passage(
    article: Article,
    score: float = 0.6,
    nearest: str | None = None,
    cosines: Sequence[float] = (),
) -> Passage:
    """``nearest`` defaults to the first sentence, up to its full stop."""
    first = article.answer.split(". ")[0].rstrip(".") + "."
    return Passage(article, score, first if nearest is None else nearest, tuple(cosines))


def query(
    text: str = "How do I reset my password?",
    *,
    topic: Topic | None = None,
    vip: bool = False,
    history: Sequence[Turn] = (),
    recent: Sequence[str] = (),
) -> Query:
    return Query(
        text=text,
        user_id="ada",
        case_reference="CASE-1234ABCD",
        history=tuple(history),
        topic=topic,
        vip=vip,
        recent_articles=frozenset(recent),
    )


def understood(
    asked: Query,
    passages: Sequence[Passage] = (),
    *,
    category: Category = "Account",
    sentiment: Sentiment = "Neutral",
    intent: Intent = "question",
    priority: int = 3,
) -> QueryState:
    """The state as a responder finds it."""
    return {
        "query": asked,
        "category": category,
        "sentiment": sentiment,
        "intent": intent,
        "priority": priority,
        "passages": tuple(passages),
        "topic": asked.topic or Topic(None, asked.text, 1),
        "escalation_reason": None,
        "stages": {},
        "failures": (),
    }


class Heard:
    """An ``Emit`` that remembers every event in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    async def __call__(self, event: str, data: dict[str, Any]) -> None:
        self.events.append((event, data))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    @property
    def text(self) -> str:
        """What the customer read: the tokens, one behind the other."""
        return "".join(data["text"] for name, data in self.events if name == "token")


def run_heard() -> tuple[Run, Heard]:
    heard = Heard()
    return Run(heard), heard


async def settle() -> None:
    """Let callbacks and closings that are already due happen."""
    for _ in range(10):
        await asyncio.sleep(0)


@dataclass
class FixedReading:
    """A ``Reading`` that finds what it was told, or what a function of the text says."""

    categories: Category | Callable[[str], Category] = "Account"
    sentiments: Sentiment | Callable[[str], Sentiment] = "Neutral"
    intents: Intent | Callable[[str], Intent] = "question"
    people: bool | Callable[[str], bool] = False
    votes_seen: list[dict[str, float]] = field(default_factory=list)
    firsts_seen: list[bool] = field(default_factory=list)

    def category(
        self,
        text: str,
        vector: Vector,
        *,
        votes: dict[str, float],
        advice: dict[str, float] | None = None,
    ) -> tuple[Category, float]:
        self.votes_seen.append(votes)
        return (self.categories(text) if callable(self.categories) else self.categories), 0.9

    def sentiment(
        self, text: str, vector: Vector, *, advice: dict[str, float] | None = None
    ) -> tuple[Sentiment, float]:
        return (self.sentiments(text) if callable(self.sentiments) else self.sentiments), 0.8

    def intent(self, text: str, vector: Vector, *, first: bool) -> tuple[Intent, float]:
        self.firsts_seen.append(first)
        return (self.intents(text) if callable(self.intents) else self.intents), 0.7

    def wants_person(self, text: str, vectors: Sequence[Vector]) -> bool:
        return self.people(text) if callable(self.people) else self.people


class FixedSearch:
    """A ``Search`` that always finds the same."""

    def __init__(
        self, passages: Sequence[Passage] = (), votes: Mapping[str, float] | None = None
    ) -> None:
        self.passages = tuple(passages)
        self.votes = dict(votes or {})
        self.hints: list[str | None] = []

    async def search(
        self, text: str, vector: Vector, *, limit: int, category: str | None = None
    ) -> tuple[Passage, ...]:
        self.hints.append(category)
        return self.passages[:limit]

    async def categories(self, text: str, vector: Vector) -> dict[str, float]:
        return self.votes


class PlainEncoder:
    """An ``Encoder`` over the hashed twin, without a thread to close."""

    def __init__(self) -> None:
        self._embedder = HashedEmbedder()

    async def encode_one(self, text: str) -> Vector:
        return np.asarray(self._embedder.encode([text])[0])

    async def encode(self, texts: Sequence[str]) -> Vector:
        return self._embedder.encode(texts)


class PacedStream:
    """A completion whose pieces the test sees go out; knows whether it was closed."""

    def __init__(self, pieces: Sequence[Chunk], *, stall_after: int | None = None) -> None:
        self._pieces = pieces
        self._stall_after = stall_after
        self.stalled = asyncio.Event()
        self.closed = False

    async def __call__(self) -> AsyncGenerator[Chunk, None]:
        try:
            for number, piece in enumerate(self._pieces):
                if number == self._stall_after:
                    self.stalled.set()
                    await asyncio.Event().wait()
                yield piece
            if self._stall_after is not None and self._stall_after >= len(self._pieces):
                self.stalled.set()
                await asyncio.Event().wait()
        finally:
            self.closed = True


class StreamModel:
    """A ``ChatModel`` whose only stream the test made itself."""

    def __init__(self, stream: PacedStream) -> None:
        self._stream = stream
        self.calls: list[tuple[ChatMessage, ...]] = []

    def stream(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, stop: Sequence[str] = ()
    ) -> AsyncGenerator[Chunk, None]:
        self.calls.append(tuple(messages))
        return self._stream()

    async def complete(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, stop: Sequence[str] = ()
    ) -> Completion:
        raise NotImplementedError

    async def health(self) -> ModelHealth:
        return ModelHealth("ok", model="streamed")

    async def aclose(self) -> None:
        return


def said(*texts: str, finish: str | None = "stop", usage: TokenUsage | None = None) -> list[Chunk]:
    """The pieces of a completion; the last one says how it ended, unless ``finish`` is None."""
    pieces = [Chunk(text) for text in texts]
    if finish is not None:
        pieces.append(Chunk(finish_reason="length" if finish == "length" else "stop", usage=usage))
    return pieces


def make_agents(
    model: ChatModel,
    *,
    reading: Reading | None = None,
    search: Search | None = None,
    encoder: Encoder | None = None,
) -> Agents:
    """The seven agents over twins."""
    reading = reading or FixedReading()
    search = search or FixedSearch()
    encoder = encoder or PlainEncoder()
    return Agents(
        categorizer=Categorizer(encoder, search, reading),
        sentiment=SentimentAnalyst(encoder, reading),
        retriever=KnowledgeRetriever(encoder, search),
        technical=TechnicalAgent(model),
        billing=BillingAgent(model),
        account=GeneralAgent(model, "account"),
        general=GeneralAgent(model, "general"),
        escalation=EscalationAgent(encoder),
    )

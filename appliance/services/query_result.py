"""What an answer tells about itself, and telling it again from what was stored of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import msgspec

from appliance.domain.answer import Citation, Mode, Outcome, TokenUsage
from appliance.domain.policy import Category, EscalationReason, Sentiment
from appliance.domain.ports import Emit
from appliance.domain.state import QueryState
from appliance.metrics import Metrics
from appliance.storage.records import Conversation, Message


@dataclass(frozen=True, slots=True)
class Metadata:
    """How an answer came about. ``stages`` are seconds; ``failures`` names agents that fell back
    and errors that were worked around; ``remote`` says that words of it were written on another
    machine, by ``model``."""

    outcome: Outcome
    mode: Mode
    flags: tuple[str, ...]
    processing_time: float
    escalated: bool
    escalation_reason: EscalationReason | None
    kb_results: list[dict[str, Any]]
    citations: tuple[Citation, ...]
    model: str | None
    stages: dict[str, float]
    tokens: TokenUsage
    category_confidence: float = 0.0
    sentiment_confidence: float = 0.0
    failures: tuple[str, ...] = ()
    remote: bool = False


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The answer to a query, as the API returns it."""

    conversation_id: str
    message_id: str
    response: str
    category: Category
    sentiment: Sentiment
    priority: int
    timestamp: datetime
    metadata: Metadata


def metadata_of(
    state: QueryState, seconds: float, model_name: Callable[[], str | None]
) -> Metadata:
    """How the answer that the graph ended with came about.

    :param seconds: the time from the message's arrival to its answer.
    :param model_name: the model in charge, for an answer that does not name the one it asked.
    """
    answer = state["answer"]
    asked = answer.mode == "drafted" or answer.tokens.prompt > 0
    return Metadata(
        outcome=answer.outcome,
        mode=answer.mode,
        flags=(*answer.flags, "remote") if answer.remote else answer.flags,
        processing_time=round(seconds, 4),
        escalated=answer.outcome == "handoff",
        escalation_reason=state.get("escalation_reason"),
        kb_results=[passage.as_result() for passage in state.get("passages", ())],
        citations=answer.citations,
        model=answer.model or (model_name() if asked else None),
        stages=state["stages"],
        tokens=answer.tokens,
        category_confidence=state.get("category_confidence", 0.0),
        sentiment_confidence=state.get("sentiment_confidence", 0.0),
        failures=state["failures"] + answer.failures,
        remote=answer.remote,
    )


def result_of(conversation: Conversation, reply: Message) -> QueryResult:
    """An answer as it was stored: the first telling and every later one are made of the same."""
    assert reply.category is not None
    assert reply.sentiment is not None
    assert reply.priority is not None
    return QueryResult(
        conversation_id=conversation.id,
        message_id=reply.id,
        response=reply.content,
        category=reply.category,
        sentiment=reply.sentiment,
        priority=reply.priority,
        timestamp=reply.created_at,
        metadata=msgspec.convert(reply.details, Metadata),
    )


async def repeat(conversation: Conversation, reply: Message, emit: Emit) -> QueryResult:
    """Tell an answer again, from what was stored of it."""
    result = result_of(conversation, reply)
    told = {"category": result.category, "sentiment": result.sentiment, "priority": result.priority}
    await emit("analysis", told)
    await emit("passages", {"kb_results": result.metadata.kb_results})
    await emit("token", {"text": result.response})
    return result


def count(metrics: Metrics, category: Category, metadata: Metadata) -> None:
    """Count an answer that was stored."""
    metrics.queries.labels(metadata.outcome, metadata.mode, category).inc()
    metrics.query_seconds.labels(metadata.mode).observe(metadata.processing_time)
    for stage, seconds in metadata.stages.items():
        metrics.stage_seconds.labels(stage).observe(seconds)
    for kind, tokens in asdict(metadata.tokens).items():
        metrics.tokens.labels(kind).inc(tokens)
    for failure in metadata.failures:
        metrics.agent_failures.labels(failure).inc()
    if metadata.escalation_reason is not None:
        metrics.escalations.labels(metadata.escalation_reason).inc()

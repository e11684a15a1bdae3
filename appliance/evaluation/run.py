"""Puts a golden set through the graph, as customers would, without storing anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.domain.policy import HISTORY_TURNS
from appliance.domain.query import Query, Topic, Turn
from appliance.domain.redaction import SECRETS, redact
from appliance.domain.state import QueryState, Run
from appliance.domain.text import clean
from appliance.evaluation.golden import GoldenItem
from appliance.graph.build import SupportGraph


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the graph made of an item, and how long it took in seconds."""

    item: GoldenItem
    state: QueryState
    seconds: float


async def run_golden(graph: SupportGraph, items: Sequence[GoldenItem]) -> AsyncIterator[Outcome]:
    """One item after the other, so that the latencies are those of a desk with one customer."""
    for item in items:
        topic = await _topic_after_history(graph, item)
        query = _query(item, item.text, len(item.history), topic)
        started = time.perf_counter()
        state = await graph(query, Run(_unheard))
        yield Outcome(item, state, time.perf_counter() - started)


async def _topic_after_history(graph: SupportGraph, item: GoldenItem) -> Topic | None:
    """Replay the customer's earlier turns, without the model, for what they make of topic and
    attempts."""
    topic = None
    for at, turn in enumerate(item.history):
        if turn.turn().role == "customer":
            run = Run(_unheard)
            run.left.set()
            state = await graph(_query(item, turn.content, at, topic), run)
            topic = state["topic"]
    return topic


def _query(item: GoldenItem, text: str, turns: int, topic: Topic | None) -> Query:
    """The query as it reaches the graph: cleaned, and without the secrets in it."""
    kept = redact(clean(text), SECRETS)
    return Query(
        kept.text,
        "golden",
        "CASE-GOLDEN",
        history=tuple(_stored(turn.turn()) for turn in item.history[:turns])[-HISTORY_TURNS:],
        topic=topic,
        removed=tuple(sorted(kept.counts)),
    )


def _stored(turn: Turn) -> Turn:
    """An earlier turn as the desk keeps it."""
    text = clean(turn.content)
    return Turn(turn.role, redact(text, SECRETS).text if turn.role == "customer" else text)


async def _unheard(event: str, data: dict[str, Any]) -> None:
    await asyncio.sleep(0)

"""Whole queries, as customers send them: one after the other, or several customers at once."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from appliance.answering.selection import fitting, for_prompt
from appliance.domain.passage import Article, Passage
from appliance.services.access import OPERATOR
from appliance.services.answer_query import AnswerQuery, Ask
from appliance.services.query_result import QueryResult


@dataclass(frozen=True, slots=True)
class Asked:
    """A query and how it went. ``first_words`` is when the first sentence of an article came; both
    times are in seconds."""

    result: QueryResult
    seconds: float
    first_words: float

    @property
    def with_model(self) -> bool:
        """Whether the model was asked."""
        return self.result.metadata.tokens.prompt > 0

    @property
    def evaluated(self) -> int:
        """Prompt tokens that were evaluated for it."""
        tokens = self.result.metadata.tokens
        return tokens.prompt - tokens.cached

    @property
    def shown(self) -> list[str]:
        """The articles that its prompt showed."""
        found = [
            Passage(Article(r["id"], r["title"], r["content"], r["category"]), r["score"])
            for r in self.result.metadata.kb_results
        ]
        return [passage.article.answer for passage in for_prompt(fitting(found))]


async def ask(desk: AnswerQuery, text: str) -> Asked:
    """One query of a customer nobody knows yet."""
    started = time.perf_counter()
    said: list[float] = []

    async def emit(event: str, data: dict[str, Any]) -> None:
        if event == "token":
            said.append(time.perf_counter() - started)

    accepted = await desk.accept(Ask(f"bench-{uuid.uuid4().hex}", text), OPERATOR)
    result = await desk.start(accepted, emit, asyncio.Event())
    seconds = time.perf_counter() - started
    # The opening is the desk's own; the second piece is the first one with something in it.
    return Asked(result, seconds, said[1] if len(said) > 1 else seconds)


async def at_once(
    ask_one: Callable[[str], Awaitable[Asked]], queries: Sequence[str], customers: int
) -> tuple[list[Asked], float]:
    """Several customers, each asking its next query as soon as it has its answer.

    Returns the answers and the seconds all of it took.
    """
    left = list(reversed(queries))
    done: list[Asked] = []

    async def customer() -> None:
        while left:
            done.append(await ask_one(left.pop()))

    started = time.perf_counter()
    await asyncio.gather(*(customer() for _ in range(customers)))
    return done, time.perf_counter() - started


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile, in seconds."""
    if not seconds:
        return {"p50": 0.0, "p95": 0.0}
    return {f"p{q}": round(float(np.percentile(seconds, q)), 4) for q in (50, 95)}


def summary(asked: Sequence[Asked]) -> dict[str, Any]:
    """Figures of queries in which the model was at work, where there are any; else of all."""
    told = [one for one in asked if one.with_model] or list(asked)
    stages = sorted({stage for one in told for stage in one.result.metadata.stages})
    modes = [one.result.metadata.mode for one in told]
    return {
        "queries": len(told),
        "modes": {mode: modes.count(mode) for mode in sorted(set(modes))},
        "seconds": percentiles([one.seconds for one in told]),
        "first_words": percentiles([one.first_words for one in told]),
        "stages": {
            stage: percentiles(
                [s for one in told if (s := one.result.metadata.stages.get(stage)) is not None]
            )
            for stage in stages
        },
        "prompt_tokens_evaluated": _mean([one.evaluated for one in told]),
        "prompt_tokens_cached": _mean([one.result.metadata.tokens.cached for one in told]),
        "tokens_generated": _mean([one.result.metadata.tokens.generated for one in told]),
    }


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 1) if values else 0.0

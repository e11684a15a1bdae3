"""Agent 3: the passages that may answer, for every query, escalated ones included."""

from __future__ import annotations

import re

from appliance.domain import policy
from appliance.domain.passage import Passage
from appliance.domain.ports import Encoder, Search
from appliance.domain.query import Query
from appliance.domain.state import QueryState, Run
from appliance.domain.text import words

_CONTINUES = re.compile(
    r"^\W*(?:and|but|so|or|then|also|ok(?:ay)?|done|what\s+about|how\s+about|what\s+if)\b",
    re.IGNORECASE,
)
_POINTS_BACK = re.compile(
    r"\b(?:it|that|this|those|these|them|they|one|ones|same)\b", re.IGNORECASE
)


class KnowledgeRetriever:
    """Writes passages, best first."""

    def __init__(self, encoder: Encoder, search: Search) -> None:
        self._encoder = encoder
        self._search = search

    async def __call__(self, state: QueryState, run: Run) -> QueryState:
        query = state["query"]
        category = state.get("category")
        found = await self._find(query.text, category)
        asked_before = _asked_before(query)
        if asked_before and (state.get("intent") == "failure" or leans(query.text)):
            found = _best_of(found, await self._find(f"{asked_before} {query.text}", category))
        return {"passages": found}

    async def _find(self, text: str, category: str | None) -> tuple[Passage, ...]:
        vector = await self._encoder.encode_one(text)
        return await self._search.search(
            text, vector, limit=policy.PASSAGES_FOUND, category=category
        )


def leans(text: str) -> bool:
    """Whether a message goes on about what the one before it names. Long ones name things
    themselves."""
    if _CONTINUES.match(text):
        return True
    return len(words(text)) <= policy.LEANING_WORDS.value and bool(_POINTS_BACK.search(text))


def _asked_before(query: Query) -> str | None:
    """The question the conversation is about, unless it is settled: its topic's, or the latest
    customer turn."""
    if query.topic is not None:
        return query.topic.question if query.topic.attempts else None
    return next((turn.content for turn in reversed(query.history) if turn.role == "customer"), None)


def _best_of(*searches: tuple[Passage, ...]) -> tuple[Passage, ...]:
    best: dict[str, Passage] = {}
    for passage in (p for found in searches for p in found):
        known = best.get(passage.article.id)
        if known is None or passage.score > known.score:
            best[passage.article.id] = passage
    ranked = sorted(best.values(), key=lambda passage: passage.score, reverse=True)
    return tuple(ranked[: policy.PASSAGES_FOUND])

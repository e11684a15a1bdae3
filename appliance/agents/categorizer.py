"""Agent 1: what the message is about and what kind of message it is."""

from __future__ import annotations

from collections.abc import Collection

from appliance.answering.wording import OFFER
from appliance.domain.policy import SENTENCES_READ
from appliance.domain.ports import Advice, Encoder, Reading, Search, no_advice
from appliance.domain.query import Query
from appliance.domain.state import QueryState, Run
from appliance.domain.text import sentences
from appliance.understanding.language import foreign_language
from appliance.understanding.phrases import agrees


class Categorizer:
    """Writes category, confidence, intent, whether a person is asked for, and the language if it is
    none of those the encoder carries.

    :param languages: ISO 639 codes of those; none means not to look.
    :param advice: the language model's word on the category.
    """

    def __init__(
        self,
        encoder: Encoder,
        search: Search,
        reading: Reading,
        languages: Collection[str] = (),
        *,
        advice: Advice = no_advice,
    ) -> None:
        self._advice = advice
        self._languages = languages
        self._encoder = encoder
        self._search = search
        self._reading = reading

    async def __call__(self, state: QueryState, run: Run) -> QueryState:
        query = state["query"]
        vector = await self._encoder.encode_one(query.text)
        votes = await self._search.categories(query.text, vector)
        advice = {} if run.left.is_set() else await self._advice("category", query.text)
        category, confidence = self._reading.category(
            query.text, vector, votes=votes, advice=advice
        )
        intent, _ = self._reading.intent(query.text, vector, first=not query.history)
        parts = sentences(query.text)
        half = SENTENCES_READ // 2
        parts = parts if len(parts) <= SENTENCES_READ else parts[:half] + parts[-half:]
        vectors = [vector, *(await self._encoder.encode(parts) if len(parts) > 1 else ())]
        return {
            "category": category,
            "category_confidence": round(confidence, 4),
            "intent": intent,
            "wants_person": self._reading.wants_person(query.text, vectors) or accepts_offer(query),
            "language": foreign_language(query.text, self._languages),
        }


def accepts_offer(query: Query) -> bool:
    """Whether the customer says yes to the desk's offer to pass the question to a person."""
    latest = query.history[-1] if query.history else None
    offered = latest is not None and latest.role == "assistant" and OFFER in latest.content
    return offered and agrees(query.text)

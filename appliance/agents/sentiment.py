"""Agent 2: the customer's mood and how urgent that makes the query."""

from __future__ import annotations

from appliance.domain import policy
from appliance.domain.ports import Advice, Encoder, Reading, no_advice
from appliance.domain.state import QueryState, Run


class SentimentAnalyst:
    """Writes sentiment, confidence and priority.

    It runs beside the retriever, so it cannot know yet whether the question is a repeated one; the
    escalation check adds that.
    """

    def __init__(self, encoder: Encoder, reading: Reading, *, advice: Advice = no_advice) -> None:
        self._advice = advice
        self._encoder = encoder
        self._reading = reading

    async def __call__(self, state: QueryState, run: Run) -> QueryState:
        query = state["query"]
        vector = await self._encoder.encode_one(query.text)
        advice = {} if run.left.is_set() else await self._advice("sentiment", query.text)
        sentiment, confidence = self._reading.sentiment(query.text, vector, advice=advice)
        return {
            "sentiment": sentiment,
            "sentiment_confidence": round(confidence, 4),
            "priority": policy.priority(sentiment, repeat=False, vip=query.vip),
        }

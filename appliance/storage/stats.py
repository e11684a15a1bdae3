"""How much the desk did, for the operator's page and ``GET /stats``."""

from __future__ import annotations

from collections import Counter
from typing import Any, get_args

from sqlalchemy import ColumnElement, func, select

from appliance.storage.records import ConversationStatus, Counts, Rating
from appliance.storage.repository import Repository
from appliance.storage.tables import conversations, feedback, messages

_c = messages.c


class StatsRepository(Repository):
    """Counts over everything stored."""

    def counts(self) -> Counts:
        """Totals and breakdowns; known statuses and ratings are there even when 0."""
        queries = select(func.count()).select_from(messages).where(_c.role == "customer")
        by: dict[str, Counter[Any]] = {
            name: Counter() for name in ("category", "sentiment", "outcome", "mode", "escalated")
        }
        # One pass over the answers for all five breakdowns: their combinations are few, the answers
        # are many.
        kinds = [_c[name] for name in by]
        answers = select(*kinds, func.count()).where(_c.role == "assistant").group_by(*kinds)
        for *values, number in self._connection.execute(answers):
            for counter, value in zip(by.values(), values, strict=True):
                if value is not None:
                    counter[value] += number
        ratings = self._tally(feedback.c.rating)
        statuses = self._tally(conversations.c.status)
        return {
            "queries": self._connection.execute(queries).scalar_one(),
            "by_category": dict(by["category"]),
            "by_sentiment": dict(by["sentiment"]),
            "by_outcome": dict(by["outcome"]),
            "by_mode": dict(by["mode"]),
            "escalated": by["escalated"][True],
            "feedback": {rating: ratings[rating] for rating in get_args(Rating)},
            "conversations": {status: statuses[status] for status in get_args(ConversationStatus)},
        }

    def _tally(self, column: ColumnElement[Any]) -> Counter[str]:
        tally: Counter[str] = Counter()
        for value, number in self._connection.execute(
            select(column, func.count()).group_by(column)
        ):
            tally[value] = number
        return tally

"""What the desk knows: articles, and the passages a search finds in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from appliance.domain.policy import Category


@dataclass(frozen=True, slots=True)
class Article:
    """One knowledge-base entry. ``id`` is text; numbers in files become their digits."""

    id: str
    question: str
    answer: str
    category: Category


@dataclass(frozen=True, slots=True)
class Passage:
    """An article found for a query.

    ``score`` is the mean of two figures: that of the cosines of the query to the whole article and
    to its nearest sentence, raised by the share of the query's words that the article has; and how
    near the query's tokens come to the article's. It is raised a little where the article is of the
    category that was understood; higher is nearer. ``nearest`` is the sentence of the answer that
    is nearest to the query; ``cosines`` are those of all its sentences, in order.
    """

    article: Article
    score: float
    nearest: str = ""
    cosines: tuple[float, ...] = ()

    def as_result(self) -> dict[str, Any]:
        """As ``kb_results`` shows it."""
        return {
            "id": self.article.id,
            "title": self.article.question,
            "content": self.article.answer,
            "category": self.article.category,
            "score": self.score,
        }

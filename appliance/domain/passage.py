"""What the desk knows: articles, and the passages a search finds in them."""

from __future__ import annotations

from dataclasses import dataclass

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

    ``score`` is a cosine, -1 to 1; higher is nearer. ``nearest`` is the sentence of the answer that
    is nearest to the query.
    """

    article: Article
    score: float
    nearest: str = ""

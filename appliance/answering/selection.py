"""Which of the passages found are fit to answer from, which of those a prompt shows, and which of
their sentences an answer must not leave out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from appliance.domain.passage import Passage
from appliance.domain.policy import (
    ARTICLES_TOLD,
    CERTAIN_MIN,
    FIT_MIN,
    NEAR_MIN,
    PASSAGES_IN_PROMPT,
    PROMPT_LEAD,
    RIVAL_LEAD,
    TELLING_LEAD,
    TELLING_LEAD_OWN,
)
from appliance.domain.text import sentences

_LEANS = re.compile(
    r"(?:it|this|that|these|those|they|he|she|both|then|otherwise|afterwards|after\s+that)\b",
    re.IGNORECASE,
)
"""How a sentence begins that cannot be understood without the one before it."""


def fitting(passages: Sequence[Passage]) -> tuple[Passage, ...]:
    """The passages fit to answer from, best first; empty means to abstain.

    A best passage may be weak by itself if it leads clearly: its score plus its lead has to reach
    ``FIT_MIN``. The others have to reach it by themselves.
    """
    if not passages:
        return ()
    best, *others = sorted(passages, key=lambda passage: passage.score, reverse=True)
    if _fit(passages) < FIT_MIN.value:
        return ()
    return (best, *(passage for passage in others if passage.score >= FIT_MIN.value))


def is_certain(passages: Sequence[Passage]) -> bool:
    """Whether the best passage fits so well that the answer need not say that it may be another."""
    return _fit(passages) >= CERTAIN_MIN.value


def rivals(passages: Sequence[Passage]) -> tuple[Passage, ...]:
    """The passage behind the best one where the two are too near to tell which of them the customer
    means: an answer that leaves it out is wrong as often as not."""
    return tuple(p for p in passages[1:2] if passages[0].score - p.score < RIVAL_LEAD.value)


def is_near(passages: Sequence[Passage]) -> bool:
    """Whether the best passages are worth quoting where none is fit to answer from."""
    return bool(passages) and _fit(passages) >= NEAR_MIN.value


def telling(passages: Sequence[Passage]) -> list[tuple[Passage, list[str]]]:
    """The sentences nearest to the query over the best articles: each article with those of its own
    in order, articles best first.

    A sentence counts with its article: the sum of its cosine and the article's score has to come
    near the largest such sum. Sentences of the best article may be further behind.
    """
    best = passages[:ARTICLES_TOLD]
    sums = [[cosine + passage.score for cosine in passage.cosines] for passage in best]
    least = max((value for row in sums for value in row), default=0.0) - TELLING_LEAD.value
    found = []
    for passage, row in zip(best, sums, strict=True):
        margin = TELLING_LEAD_OWN if passage is best[0] else 0.0
        told = {at for at, value in enumerate(row) if value >= least - margin}
        parts = sentences(passage.article.answer)
        told |= {at - 1 for at in told if at and _LEANS.match(parts[at])}
        if told:
            found.append((passage, [parts[at] for at in sorted(told)]))
    return found


def _fit(passages: Sequence[Passage]) -> float:
    """The score of the best passage and its lead over the next one."""
    first, *others = sorted((passage.score for passage in passages), reverse=True)
    return first + (first - others[0] if others else 0.0)


def for_prompt(passages: Sequence[Passage]) -> tuple[Passage, ...]:
    """The best passages that are near the very best one: few, because prompt tokens cost most."""
    return tuple(
        passage
        for passage in passages[:PASSAGES_IN_PROMPT]
        if passages[0].score - passage.score <= PROMPT_LEAD.value
    )

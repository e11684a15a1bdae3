"""Which of the passages found are fit to answer from, and which of those a prompt shows."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.domain.passage import Passage
from appliance.domain.policy import (
    CERTAIN_MIN,
    FIT_MIN,
    PASSAGES_IN_PROMPT,
    PROMPT_LEAD,
    RIVAL_LEAD,
)


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

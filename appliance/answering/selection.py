"""Which of the passages found are fit to answer from, and which of those a prompt shows."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.domain.passage import Passage
from appliance.domain.policy import FIT_MIN, PASSAGES_IN_PROMPT, PROMPT_LEAD


def fitting(passages: Sequence[Passage]) -> tuple[Passage, ...]:
    """The passages fit to answer from, best first; empty means to abstain.

    A best passage may be weak by itself if it leads clearly: its score plus its lead has to reach
    ``FIT_MIN``. The others have to reach it by themselves.
    """
    if not passages:
        return ()
    best, *others = sorted(passages, key=lambda passage: passage.score, reverse=True)
    lead = best.score - others[0].score if others else 0.0
    if best.score + lead < FIT_MIN.value:
        return ()
    return (best, *(passage for passage in others if passage.score >= FIT_MIN.value))


def for_prompt(passages: Sequence[Passage]) -> tuple[Passage, ...]:
    """The best passages that are near the very best one: few, because prompt tokens cost most."""
    return tuple(
        passage
        for passage in passages[:PASSAGES_IN_PROMPT]
        if passages[0].score - passage.score <= PROMPT_LEAD.value
    )

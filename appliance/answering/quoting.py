"""Answers made of numbered sentences: the model names numbers, code prints the sentences.

A handful of tokens instead of a text, and nothing that no article says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from appliance.domain.passage import Passage
from appliance.domain.policy import QUOTABLE_SENTENCES
from appliance.domain.text import sentences


class Quotable(NamedTuple):
    """A sentence that may be quoted, and the passage it is from."""

    sentence: str
    passage: Passage


def quotable(passages: Sequence[Passage]) -> tuple[Quotable, ...]:
    """The sentences of the passages in order; number 1 is the first."""
    found = [Quotable(part, p) for p in passages for part in sentences(p.article.answer)]
    return tuple(found[:QUOTABLE_SENTENCES])


def listed(choices: Sequence[Quotable]) -> str:
    """The sentences as a prompt shows them, one a line."""
    return "\n".join(f"{number}. {each.sentence}" for number, each in enumerate(choices, start=1))


def chosen(choices: Sequence[Quotable], numbers: Sequence[int]) -> list[Quotable]:
    """The sentences with these numbers, in the articles' own order: that is how they make sense."""
    return [choices[number - 1] for number in sorted(set(numbers))]

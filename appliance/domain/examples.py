"""Messages that a person labelled, and which of them judge instead of teach."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from appliance.domain.policy import HELD_OUT_EVERY, Category, Intent, Sentiment
from appliance.domain.text import words

ExampleSource = Literal["correction", "import"]

Labelled = Literal["category", "sentiment", "intent"]
"""What can be corrected: a field of ``Example`` and the head of the same name."""


@dataclass(frozen=True, slots=True)
class Example:
    """A message and what a person says of it; at least one label is there."""

    text: str
    category: Category | None = None
    sentiment: Sentiment | None = None
    intent: Intent | None = None


@dataclass(frozen=True, slots=True)
class Teaching:
    """A desk's own examples, each text once.

    ``taught`` teach what is used; ``judged`` are those of them that also teach what is judged;
    ``judges`` were never part of that. ``withheld`` counts texts of the golden set, which are in
    neither of the first two.
    """

    taught: tuple[Example, ...]
    judged: tuple[Example, ...]
    judges: tuple[Example, ...]
    withheld: int = 0


def text_key(text: str) -> str:
    """The same for texts of the same words, whatever their capitals, marks and spaces."""
    normal = " ".join(words(text)) or "".join(text.casefold().split())
    return hashlib.sha256(normal.encode()).hexdigest()


def fold_of(key: str) -> int:
    """Which of ``HELD_OUT_EVERY`` folds texts of this key are in, for ever."""
    return int(key[:8], 16) % HELD_OUT_EVERY


def held_out(key: str) -> bool:
    """Whether texts of this key judge."""
    return fold_of(key) == 0


def teaching(examples: Iterable[Example], golden: Collection[str]) -> Teaching:
    """What to learn from.

    :param examples: oldest first. Of two labels of one text the later one counts.
    :param golden: keys of the golden set, which never trains.
    """
    known: dict[str, Example] = {}
    for example in examples:
        key = text_key(example.text)
        before = known.pop(key, example)
        known[key] = replace(
            example,
            category=example.category or before.category,
            sentiment=example.sentiment or before.sentiment,
            intent=example.intent or before.intent,
        )
    taught = {key: example for key, example in known.items() if key not in golden}
    return Teaching(
        taught=tuple(taught.values()),
        judged=tuple(example for key, example in taught.items() if not held_out(key)),
        judges=tuple(example for key, example in known.items() if held_out(key)),
        withheld=len(known) - len(taught),
    )

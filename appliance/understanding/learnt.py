"""What a version of the heads holds, and the reader it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast, get_args

from appliance.domain.examples import Labelled
from appliance.domain.policy import Category, Intent, Sentiment
from appliance.understanding import heads
from appliance.understanding.heads import Floats, Head
from appliance.understanding.reader import Reader
from appliance.understanding.recall import recalled

HEADS: tuple[Labelled, ...] = get_args(Labelled)

RECALLED = 1.0
"""Confidence in what a person said of an all but equal message."""


@dataclass(frozen=True, slots=True, eq=False)
class LearntHead:
    """A head and the messages it recalls; ``judged`` are their twins that saw no judge, what the
    next candidate is compared with. A shipped head is its own twin."""

    head: Head
    recall: Head | None
    judged: Head
    judged_recall: Head | None
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        parts = {"head": self.head, "recall": self.recall}
        found = heads.digest({part: head for part, head in parts.items() if head is not None})
        object.__setattr__(self, "digest", found)


Learnt = Mapping[Labelled, LearntHead]
"""A version: every head by name."""


def as_shipped(trained: Mapping[str, Head]) -> Learnt:
    """The version that knows no corrections."""
    return {name: LearntHead(trained[name], None, trained[name], None) for name in HEADS}


class LearntReader:
    """Keeps the ``Reading`` protocol. Immutable; what is recalled goes before what is computed."""

    def __init__(self, learnt: Learnt) -> None:
        self._reader = Reader({name: each.head for name, each in learnt.items()})
        self._recall = {name: each.recall for name, each in learnt.items()}
        self.fingerprint = heads.digest(
            {
                f"{name}.{part}": head
                for name, each in learnt.items()
                for part, head in (("head", each.head), ("recall", each.recall))
                if head is not None
            }
        )

    def category(
        self,
        text: str,
        vector: Floats,
        *,
        votes: dict[str, float],
        advice: dict[str, float] | None = None,
    ) -> tuple[Category, float]:
        """See ``Reading``."""
        known = recalled(self._recall.get("category"), text, vector, mood=False)
        if known is not None:
            return cast(Category, known), RECALLED
        return self._reader.category(text, vector, votes=votes, advice=advice)

    def sentiment(
        self, text: str, vector: Floats, *, advice: dict[str, float] | None = None
    ) -> tuple[Sentiment, float]:
        """See ``Reading``."""
        known = recalled(self._recall.get("sentiment"), text, vector, mood=True)
        if known is not None:
            return cast(Sentiment, known), RECALLED
        return self._reader.sentiment(text, vector, advice=advice)

    def intent(self, text: str, vector: Floats, *, first: bool) -> tuple[Intent, float]:
        """See ``Reading``."""
        return self._reader.intent(text, vector, first=first)

    def wants_person(self, text: str, vectors: Sequence[Floats]) -> bool:
        """See ``Reading``."""
        return self._reader.wants_person(text, vectors)

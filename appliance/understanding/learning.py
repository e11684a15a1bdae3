"""Learning from a desk's own corrections: what is trained, what judges it, and what is kept.

Shipped examples and corrections are trained together. A fifth of the corrections, by the hash of
their words, judges: twins of the heads are trained without it and compared on it with the twins of
the version in charge, which never saw it either. What a desk then uses is trained on the judges
too, since a person who corrects one message expects that very message to come out right. The
shipped examples judge as well, each by a head trained on the other folds of them and on all
corrections, always against heads without any correction: many small losses cannot add up unseen.

Each head is kept or refused by itself: bad corrections of moods do not hold up good ones of
categories.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from appliance.domain.examples import Example, Labelled, Teaching, fold_of, text_key
from appliance.domain.policy import (
    DESK_WEIGHT,
    DESK_WEIGHT_MAX,
    DESK_WEIGHT_MIN,
    GATE_NOISE,
    GATE_TOLERANCE,
    HELD_OUT_EVERY,
    SHIPPED_TOLERANCE,
)
from appliance.understanding import heads
from appliance.understanding.heads import Floats, Head
from appliance.understanding.learnt import HEADS, Learnt, LearntHead, LearntReader
from appliance.understanding.reader import STRENGTHS, features
from appliance.understanding.recall import remember

RECALLS: tuple[Labelled, ...] = ("category", "sentiment")
"""Intents are not recalled: the same words mean another thing in another turn."""

Encode = Callable[[Sequence[str]], Floats]
Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Duel:
    """Two heads on the same ``n`` messages: the share each reads right, and on how many only the
    old or only the new one is right."""

    n: int
    before: float
    after: float
    lost: int
    won: int

    def is_lost(self, tolerance: float) -> bool:
        """Whether the new one is worse by more than the tolerance and what chance explains."""
        chance = GATE_NOISE * math.sqrt(self.lost + self.won)
        return self.lost - self.won > tolerance * self.n + chance


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a head's candidate is kept. ``taught`` counts the desk's examples it learnt from."""

    head: Labelled
    kept: bool
    taught: int
    desk: Duel
    shipped: Duel
    why: str = ""


def desk_weight(count: int) -> float:
    """How many times each of so many corrections counts beside a shipped example."""
    weight = DESK_WEIGHT.value / math.sqrt(max(count, 1))
    return min(max(weight, DESK_WEIGHT_MIN), DESK_WEIGHT_MAX)


def learn(
    shipped: Rows,
    desk: Teaching,
    encode: Encode,
    in_charge: Learnt,
    without: Mapping[str, Head],
    alone: dict[Labelled, list[bool]] | None = None,
) -> tuple[Learnt, tuple[Verdict, ...]]:
    """The version that follows the one in charge, and what was decided on each head that would be
    another. Takes seconds, blocks.

    :param shipped: rows of ``kb/examples.jsonl``.
    :param encode: texts to vectors of shape (n, dimensions).
    :param without: the shipped heads, for what there are no corrections of.
    :param alone: how the shipped examples are read without the desk's; filled on the way, so that
        it can be handed in again.
    """
    alone = {} if alone is None else alone
    chosen: dict[Labelled, LearntHead] = dict(in_charge)
    verdicts = []
    for name in HEADS:
        school = _School(name, shipped, encode, without[name])
        found = school.candidate(desk)
        if found.digest != in_charge[name].digest:
            if name not in alone:
                alone[name] = school.reads_shipped(())
            verdict = _judge(school, desk, in_charge[name], found, alone[name])
            verdicts.append(verdict)
            if verdict.kept:
                chosen[name] = found
    return chosen, tuple(verdicts)


class _School:
    """Trains and examines one head. What a head sees of the shipped examples is worked out once."""

    def __init__(self, name: Labelled, shipped: Rows, encode: Encode, without: Head) -> None:
        rows = [row for row in shipped if row.get(name) is not None]
        self.name = name
        self._encode = encode
        self._without = without
        self._texts: list[str] = [row["text"] for row in rows]
        self._labels: list[str] = [row[name] for row in rows]
        self._seen = features(name, encode(self._texts), self._texts)
        self._folds = np.array([fold_of(text_key(text)) for text in self._texts])

    def labelled(self, examples: Sequence[Example]) -> tuple[list[str], list[str]]:
        """Texts and labels of the examples that say something for this head."""
        chosen = [example for example in examples if getattr(example, self.name) is not None]
        return [e.text for e in chosen], [getattr(e, self.name) for e in chosen]

    def candidate(self, desk: Teaching) -> LearntHead:
        """What comes of the desk's examples: the shipped head where there are none."""
        whole = self._fit(desk.taught)
        same = self.labelled(desk.judged) == self.labelled(desk.taught)
        return LearntHead(*whole, *(whole if same else self._fit(desk.judged)))

    def reads(
        self, head: Head, recall: Head | None, texts: Sequence[str], labels: Sequence[str]
    ) -> list[bool]:
        """For each text whether it is read as it is labelled, by the very rules that customers'
        messages are read by; articles do not vote, they would hide what the head knows."""
        reader = LearntReader({self.name: LearntHead(head, recall, head, recall)})
        read: dict[str, Callable[[str, Floats], tuple[str, float]]] = {
            "category": lambda text, vector: reader.category(text, vector, votes={}),
            "sentiment": reader.sentiment,
            "intent": lambda text, vector: reader.intent(text, vector, first=False),
        }
        return [
            read[self.name](text, vector)[0] == label
            for text, vector, label in zip(texts, self._encode(texts), labels, strict=True)
        ]

    def reads_shipped(self, examples: Sequence[Example]) -> list[bool]:
        """The same for the shipped examples, each read by a head trained on the other folds."""
        right: list[bool] = []
        for fold in range(HELD_OUT_EVERY):
            inside, outside = np.flatnonzero(self._folds == fold), self._folds != fold
            if len(inside):
                head, _ = self._fit(examples, outside)
                texts = [self._texts[i] for i in inside]
                right += self.reads(head, None, texts, [self._labels[i] for i in inside])
        return right

    def _fit(
        self, examples: Sequence[Example], chosen: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Head, Head | None]:
        """A head and what it recalls; ``chosen`` are the shipped examples it learns from."""
        texts, labels = self.labelled(examples)
        if not texts and chosen is None:
            return self._without, None
        at = np.arange(len(self._texts)) if chosen is None else np.flatnonzero(chosen)
        seen, known = self._seen[at], [self._labels[i] for i in at]
        recall = None
        if texts:
            vectors = self._encode(texts)
            seen = np.vstack([seen, features(self.name, vectors, texts)])
            if self.name in RECALLS:
                recall = remember(vectors, texts, labels)
        weights = [1.0] * len(at) + [desk_weight(len(texts))] * len(texts)
        strength = STRENGTHS[self.name]
        return heads.train(seen, known + labels, strength=strength, weights=weights), recall


def _judge(
    school: _School, desk: Teaching, in_charge: LearntHead, candidate: LearntHead, alone: list[bool]
) -> Verdict:
    texts, wanted = school.labelled(desk.judges)
    on_desk = _duel(
        school.reads(in_charge.judged, in_charge.judged_recall, texts, wanted),
        school.reads(candidate.judged, candidate.judged_recall, texts, wanted),
    )
    on_shipped = _duel(alone, school.reads_shipped(desk.taught))
    why = []
    if on_desk.is_lost(GATE_TOLERANCE):
        why.append(_said(on_desk, "held-out corrections"))
    if on_shipped.is_lost(SHIPPED_TOLERANCE):
        why.append(_said(on_shipped, "shipped examples"))
    taught = len(school.labelled(desk.taught)[0])
    return Verdict(school.name, not why, taught, on_desk, on_shipped, "; ".join(why))


def _said(duel: Duel, where: str) -> str:
    return f"{duel.before:.3f} to {duel.after:.3f} on {duel.n} {where}"


def _duel(before: Sequence[bool], after: Sequence[bool]) -> Duel:
    count = len(before)
    pairs = list(zip(before, after, strict=True))
    return Duel(
        n=count,
        before=sum(before) / max(count, 1),
        after=sum(after) / max(count, 1),
        lost=sum(old and not new for old, new in pairs),
        won=sum(new and not old for old, new in pairs),
    )

"""Two runs side by side: what became better or worse, and what chance explains.

Where both hold their queries, each query is compared with itself, see ``chance``. Runs without
their queries are compared as two samples, which takes a larger difference to convince.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final, Literal

import msgspec
import numpy as np

from appliance.errors import InvalidInput
from appliance.evaluation.chance import chance_of_gain, ratio
from appliance.evaluation.metrics import gathered
from appliance.evaluation.scoring import Result

RISK: Final = 0.025
"""Largest chance, on the worse side, at which a loss counts as a regression: six queries lost and
none gained are one, five are not. Not made smaller for the many figures that are looked at, since
this is asked before something goes live: one alarm too many costs a look."""

HIGHER: Final = frozenset(
    {"accuracy", "accuracy_3", "precision", "recall", "recall_at_1", "recall_at_3", "mrr"}
    | {"fact_recall", "exact"}
)
LOWER: Final = frozenset(
    {"false_rate", "forbidden_rate", "unsupported_rate", "wrong_answer_rate"}
    | {"needless_refusal_rate"}
)
"""Names of figures that should be high, and that should be low. No other decides anything."""

UNCOMPARED: Final = frozenset(
    {"n", "run", "compare", "counts", "items", "confusion", "modes", "failures", "false_by_rule"}
)
"""Keys of a report that hold no figures."""

Verdict = Literal["better", "worse", "same", "told"]
"""``same`` is what chance explains, ``told`` what is neither good nor bad."""


class Saved(msgspec.Struct):
    """An earlier report, as far as it is compared."""

    n: int
    counts: dict[str, int] = {}
    items: list[Result] | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A figure before and after. ``lost`` and ``gained`` count the queries that became worse and
    better; ``chance`` is how likely so large a difference is without a reason."""

    figure: str
    before: float | None
    after: float | None
    difference: float | None
    verdict: Verdict
    chance: float | None = None
    lost: int | None = None
    gained: int | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All figures of two runs. ``paired`` tells whether query by query, ``shared`` how many;
    ``regressions`` names the figures that are worse by more than chance explains."""

    paired: bool
    shared: int
    before_only: int
    after_only: int
    changes: list[Change]
    regressions: list[str]


class Report:
    """A saved report, for comparing another with it."""

    def __init__(self, name: str, document: Mapping[str, Any]) -> None:
        """:raises InvalidInput: this is no report of ``appliance eval``."""
        try:
            self.saved = msgspec.convert(document, Saved)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"{name} is no report of 'appliance eval': {error}.") from error
        self.name = name
        self.figures = dict(figures(document))

    @classmethod
    def read(cls, path: Path) -> Report:
        """:raises InvalidInput: it cannot be read, or is no report."""
        try:
            document = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.MsgspecError) as error:
            raise InvalidInput(f"{path} is no report of 'appliance eval'.") from error
        return cls(path.name, document)


def figures(card: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, float | None]]:
    """Every figure of a report under its place, such as ``category.accuracy``; counts are none."""
    for key, value in card.items():
        if key in UNCOMPARED:
            continue
        if isinstance(value, Mapping):
            yield from figures(value, f"{place}{key}.")
        elif place and not isinstance(value, bool | str | list):
            yield f"{place}{key}", value


def compare(before: Report, after: Report) -> Comparison:
    """What changed from one run to the other.

    :raises InvalidInput: both runs hold their queries, and share none.
    """
    if before.saved.items is None or after.saved.items is None:
        changes = [_unpaired(figure, before, after) for figure in _names(before, after)]
        return _comparison(False, (0, before.saved.n, after.saved.n), changes)
    old = {item.key: item for item in before.saved.items}
    new = {item.key: item for item in after.saved.items}
    shared = [key for key in new if key in old]
    if not shared:
        raise InvalidInput(
            f"{before.name} shares no query with this run.",
            hint="Compare runs of the same golden set.",
        )
    pairs = [(old[key], new[key]) for key in shared]
    scored = [*gathered(a for a, _ in pairs), *gathered(b for _, b in pairs)]
    changes = [_paired(figure, pairs) for figure in dict.fromkeys(scored)]
    if len(shared) == len(old) == len(new):
        # What is no mean over queries is told, where it is of the same ones.
        known = {change.figure for change in changes}
        changes += [
            _told(figure, before.figures.get(figure), after.figures.get(figure))
            for figure in _names(before, after)
            if figure not in known
        ]
    left = len(old) - len(shared), len(new) - len(shared)
    return _comparison(True, (len(shared), *left), changes)


def _comparison(paired: bool, sizes: tuple[int, int, int], changes: list[Change]) -> Comparison:
    worse = [change.figure for change in changes if change.verdict == "worse"]
    return Comparison(paired, *sizes, changes, worse)


def _told(figure: str, before: float | None, after: float | None) -> Change:
    difference = None if before is None or after is None else round(after - before, 4)
    return Change(figure, before, after, difference, "told")


def _names(before: Report, after: Report) -> list[str]:
    return list(dict.fromkeys([*before.figures, *after.figures]))


def _sign(figure: str) -> int:
    """1 for a figure that should be high, -1 for one that should be low, 0 for the others."""
    name = figure.rpartition(".")[2]
    if ".sure." in figure:
        # Who dares to be sure more often may be right less often then, and better all the same.
        return 0
    return 1 if name in HIGHER else -1 if name in LOWER else 0


def _paired(figure: str, pairs: Sequence[tuple[Result, Result]]) -> Change:
    """A figure over the queries that both runs share."""
    sides = [[_sum_and_count(item, figure) for item in side] for side in zip(*pairs, strict=True)]
    old, new = np.asarray(sides[0]), np.asarray(sides[1])
    before, after = ratio(old.sum(axis=0)), ratio(new.sum(axis=0))
    told = _told(figure, _rounded(before), _rounded(after))
    sign = _sign(figure)
    if not sign or np.isnan(before) or np.isnan(after):
        return told
    # Where the queries that count are others in the two runs, none of them was lost or gained.
    moved = sign * (new - old)[:, 0] if (old[:, 1] == new[:, 1]).all() else None
    gain = sign * float(after - before)
    chance = 1.0 if gain == 0 else chance_of_gain(old, new, sign if gain > 0 else -sign)
    return replace(
        told,
        verdict=_verdict(gain, chance),
        chance=round(chance, 4),
        lost=None if moved is None else int((moved < 0).sum()),
        gained=None if moved is None else int((moved > 0).sum()),
    )


def _unpaired(figure: str, before: Report, after: Report) -> Change:
    """A figure of two runs of which only the sizes are known."""
    first, second = before.figures.get(figure), after.figures.get(figure)
    counts = before.saved.counts.get(figure, 0), after.saved.counts.get(figure, 0)
    sign = _sign(figure)
    told = _told(figure, first, second)
    if not sign or first is None or second is None or 0 in counts:
        return told
    gain = sign * (second - first)
    share = (first * counts[0] + second * counts[1]) / sum(counts)
    # Of all values between 0 and 1 with this mean, zeros and ones spread widest: for shares this is
    # right, for other means careful.
    spread = math.sqrt(share * (1 - share) * (1 / counts[0] + 1 / counts[1]))
    chance = NormalDist().cdf(-abs(gain) / spread) if spread else 1.0
    return replace(told, verdict=_verdict(gain, chance), chance=round(chance, 4))


def _verdict(gain: float, chance: float) -> Verdict:
    if chance > RISK:
        return "same"
    return "worse" if gain < 0 else "better"


def _sum_and_count(item: Result, figure: str) -> tuple[float, float]:
    values = item.scores.get(figure, ())
    return sum(values), float(len(values))


def _rounded(value: Any) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)

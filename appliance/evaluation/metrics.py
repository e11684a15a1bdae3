"""The report card: what ``appliance eval --json`` prints. Only what the golden set states is
measured."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np

from appliance.answering.grounding import supporting_passage
from appliance.answering.wording import DESK_SENTENCES
from appliance.domain.text import sentences
from appliance.evaluation.run import Outcome
from appliance.evaluation.scoring import LABELLED, Result, results

FIGURES: Final[dict[str, tuple[str, ...]]] = {
    "category": ("accuracy",),
    "sentiment": ("accuracy", "accuracy_3"),
    "anger": ("precision", "recall"),
    "escalation": ("recall", "false_rate"),
    "retrieval": ("recall_at_1", "recall_at_3", "mrr"),
    "answers": (
        *("fact_recall", "exact", "forbidden_rate", "unsupported_rate"),
        *("wrong_answer_rate", "needless_refusal_rate", "words"),
    ),
}
"""Parts of the report and the figures that each has, be they known or not."""

COUNTED: Final[dict[str, tuple[str, ...]]] = {
    **FIGURES,
    "anger": ("recall",),
    "answers": ("fact_recall", "wrong_answer_rate", "needless_refusal_rate"),
}
"""The figures that make a query one of a part's ``n``."""

FURTHER: Final[dict[str, tuple[str, ...]]] = {
    "category": ("ece", "coverage"),
    "sentiment": ("ece", "coverage"),
    "abstention": ("wrong_answer_rate", "needless_refusal_rate"),
    "judge": ("share",),
    "latency": ("p50", "p95"),
    "tokens": ("prompt", "cached", "generated"),
}
"""Figures that a report can hold besides."""

BY_SOURCE: Final = ("category", "sentiment", "escalation", "answers")

BINS: Final = 10
"""Bins of equal width for the expected calibration error."""


def report(outcomes: Sequence[Outcome], model: str | None) -> dict[str, Any]:
    """All figures of a run; under ``counts`` over how many values each is a mean, under ``items``
    what came of each query, as ``Result``."""
    items = results(outcomes, [_judged(outcome) for outcome in outcomes])
    card: dict[str, Any] = {"n": len(items)}
    for part in FIGURES:
        figures = _figures(part, items)
        # Where moods are stated and nobody is angry, that is worth telling.
        if figures["n"] or (part == "anger" and "sentiment" in card):
            card[part] = figures
    for part in BY_SOURCE:
        if part in card:
            card[part]["by_source"] = _by_source(part, items)
    for part in LABELLED:
        if part in card:
            card[part] |= _classification(part, items)
    if "escalation" in card:
        card["escalation"] |= _reasons(items)
    if kinds := _groups("abstention", items):
        card["abstention"] = kinds
    ways = [o.state["answer"] for o in outcomes]
    modes = Counter(answer.mode for answer in ways if answer.outcome == "answered")
    return card | {
        "latency": _latency(outcomes),
        "tokens": _tokens(outcomes),
        "model": model,
        "mode": modes.most_common(1)[0][0] if modes else "none",
        "modes": dict(modes),
        "failures": dict(Counter(agent for o in outcomes for agent in o.state["failures"])),
        "counts": {figure: len(values) for figure, values in sorted(gathered(items).items())},
        "items": items,
    }


def is_figure(name: str) -> bool:
    """Whether a report can hold a figure at this place, such as ``latency.total.p95``."""
    part, _, place = name.partition(".")
    return place.rpartition(".")[2] in (*FIGURES.get(part, ()), *FURTHER.get(part, ()))


def gathered(items: Iterable[Result]) -> dict[str, list[float]]:
    """By figure, the values that it is the mean of."""
    values: dict[str, list[float]] = defaultdict(list)
    for item in items:
        for figure, added in item.scores.items():
            if added:
                values[figure] += added
    return dict(values)


def _figures(part: str, items: Sequence[Result]) -> dict[str, Any]:
    values = gathered(items)
    counted = [f"{part}.{figure}" for figure in COUNTED[part]]
    return {figure: _mean(values.get(f"{part}.{figure}", [])) for figure in FIGURES[part]} | {
        "n": sum(any(figure in item.scores for figure in counted) for item in items)
    }


def _by_source(part: str, items: Sequence[Result]) -> dict[str, dict[str, Any]]:
    sources: dict[str, list[Result]] = defaultdict(list)
    for item in items:
        sources[item.source].append(item)
    figures = {source: _figures(part, some) for source, some in sources.items()}
    return {source: found for source, found in figures.items() if found["n"]}


def _groups(prefix: str, items: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Figures named ``PREFIX.GROUP.FIGURE``, by group and figure."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, values in gathered(items).items():
        if name.startswith(f"{prefix}."):
            group, _, figure = name.removeprefix(f"{prefix}.").rpartition(".")
            found[group] |= {figure: _mean(values)}
            found[group]["n"] = found[group].get("n", 0) + len(values)
    return dict(found)


def _classification(part: str, items: Sequence[Result]) -> dict[str, Any]:
    """Who was taken for what, and what the confidence is worth, where it is known."""
    told = [item for item in items if f"{part}.accuracy" in item.scores]
    confusion: dict[str, Counter[str]] = defaultdict(Counter)
    for item in told:
        confusion[item.wanted[part]][item.found[part]] += 1
    figures: dict[str, Any] = {
        "confusion": {wanted: dict(row) for wanted, row in sorted(confusion.items())}
    }
    sure = [item for item in told if f"{part}.sure.coverage" in item.scores]
    if not sure:
        return figures
    values = gathered(sure)
    confident = values.get(f"{part}.sure.accuracy", [])
    return figures | {
        "ece": calibration_error(
            [item.found[f"{part}_confidence"] for item in sure], values[f"{part}.accuracy"]
        ),
        "sure": {
            "accuracy": _mean(confident),
            "coverage": _mean(values[f"{part}.sure.coverage"]),
            "n": len(confident),
        },
    }


def calibration_error(confidences: Sequence[float], hits: Sequence[float]) -> float:
    """The expected calibration error: how far confidence and accuracy lie apart, the mean over
    ``BINS`` bins of confidence, weighted with the labels in each."""
    told, right = np.asarray(confidences), np.asarray(hits)
    bins = np.minimum((told * BINS).astype(int), BINS - 1)
    apart = [abs(float((told - right)[bins == at].sum())) for at in np.unique(bins)]
    return round(sum(apart) / len(told), 4)


def _reasons(items: Sequence[Result]) -> dict[str, Any]:
    """Who should be handed over, by why; who should not have been, by the rule that did it."""
    wrongly = [item for item in items if any(item.scores.get("escalation.false_rate", ()))]
    return {
        "by_reason": _groups("escalation.by_reason", items),
        "false_by_rule": dict(Counter(str(item.found["escalation_reason"]) for item in wrongly)),
    }


def _judged(outcome: Outcome) -> list[bool]:
    """For each sentence of an answer that says something: whether a passage supports it. The judge
    is the one that let it pass, so this proves that nothing goes around the judge, not that the
    judge is right."""
    answer = outcome.state["answer"]
    if answer.outcome != "answered":
        return []
    own = {part for said in DESK_SENTENCES for part in sentences(said)}
    passages = outcome.state.get("passages", ())
    verbatim = {part for p in passages for part in sentences(p.article.answer)}
    said = ["", *(part for part in sentences(answer.response) if part not in own)]
    return [
        part in verbatim or supporting_passage(part, passages, before) is not None
        for before, part in pairwise(said)
    ]


def _latency(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    stages: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        stages["total"].append(outcome.seconds)
        for stage, seconds in outcome.state["stages"].items():
            stages[stage].append(seconds)
    return {
        stage: {
            "p50": round(float(np.percentile(seconds, 50)), 4),
            "p95": round(float(np.percentile(seconds, 95)), 4),
        }
        for stage, seconds in stages.items()
    }


def _tokens(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    def mean(of: Callable[[Outcome], int]) -> float | None:
        return _mean([of(o) for o in outcomes])

    return {
        "prompt": mean(lambda o: o.state["answer"].tokens.prompt),
        "cached": mean(lambda o: o.state["answer"].tokens.cached),
        "generated": mean(lambda o: o.state["answer"].tokens.generated),
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None

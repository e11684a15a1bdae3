"""What a query of a golden set adds to each figure: the definitions of all figures.

A figure is the mean of what its queries add, and named by its place in the report, such as
``escalation.by_reason.phrase.recall``. So the same numbers make the report, the list of items, and
the comparison of two runs query by query.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from appliance.domain.text import words
from appliance.evaluation.golden import GoldenItem, GoldenTurn
from appliance.evaluation.run import Outcome
from appliance.understanding.phrases import escalation_phrase

Scores = dict[str, list[float]]
"""By figure, the values to be averaged: mostly one, for sentences several."""

SURE: Final = 0.8
"""Confidence from which on a label counts as sure."""

MERGED: Final = {"Angry": "Negative"}
"""The four sentiments as three."""

LABELLED: Final = ("category", "sentiment")


class Result(msgspec.Struct, omit_defaults=True):
    """A query, what was wanted, and what came. ``key`` is unique within a run and the same in every
    run of the same set."""

    key: str
    text: str
    source: str
    wanted: dict[str, Any]
    found: dict[str, Any]
    outcome: str
    mode: str
    response: str
    seconds: float
    scores: Scores
    history: list[GoldenTurn] = []


def results(outcomes: Sequence[Outcome], supported: Sequence[Sequence[bool]]) -> list[Result]:
    """What came of each query.

    :param supported: for each query, whether a passage supports each sentence of its answer.
    """
    met: Counter[str] = Counter()
    found = []
    for outcome, verdicts in zip(outcomes, supported, strict=True):
        digest = outcome.item.digest
        met[digest] += 1
        found.append(_result(outcome, f"{digest}-{met[digest]}", verdicts))
    return found


def _result(outcome: Outcome, key: str, verdicts: Sequence[bool]) -> Result:
    item, state, answer = outcome.item, outcome.state, outcome.state["answer"]
    stated = msgspec.to_builtins(item)
    return Result(
        key=key,
        text=item.text,
        source=item.source,
        wanted={k: v for k, v in stated.items() if k not in ("text", "history", "source")},
        found={
            "category": state["category"],
            "category_confidence": state.get("category_confidence"),
            "sentiment": state["sentiment"],
            "sentiment_confidence": state.get("sentiment_confidence"),
            "escalation_reason": state.get("escalation_reason"),
            "faqs": [passage.article.id for passage in state.get("passages", ())],
        },
        outcome=answer.outcome,
        mode=answer.mode,
        response=answer.response,
        seconds=round(outcome.seconds, 4),
        scores={
            **_labels(outcome),
            **_anger(outcome),
            **_escalation(outcome),
            **_retrieval(outcome),
            **_answers(outcome, verdicts),
        },
        history=item.history,
    )


def reason_wanted(item: GoldenItem) -> str:
    """Why a query should be handed over, as far as the line tells; the first that holds."""
    if escalation_phrase(item.text) is not None:
        return "phrase"
    if item.intent == "person":
        return "person"
    return "anger" if item.sentiment == "Angry" else "rest"


def _labels(outcome: Outcome) -> Scores:
    scores: Scores = {}
    for name in LABELLED:
        wanted, found = getattr(outcome.item, name), outcome.state[name]
        if wanted is None:
            continue
        scores[f"{name}.accuracy"] = [float(wanted == found)]
        if name == "sentiment":
            hit = MERGED.get(wanted, wanted) == MERGED.get(found, found)
            scores["sentiment.accuracy_3"] = [float(hit)]
        confidence = outcome.state.get(f"{name}_confidence")
        if isinstance(confidence, float):
            scores[f"{name}.sure.coverage"] = [float(confidence >= SURE)]
            if confidence >= SURE:
                scores[f"{name}.sure.accuracy"] = [float(wanted == found)]
    return scores


def _anger(outcome: Outcome) -> Scores:
    if outcome.item.sentiment is None:
        return {}
    wanted, found = outcome.item.sentiment == "Angry", outcome.state["sentiment"] == "Angry"
    scores: Scores = {"anger.recall": [float(found)]} if wanted else {}
    return scores | ({"anger.precision": [float(wanted)]} if found else {})


def _escalation(outcome: Outcome) -> Scores:
    if outcome.item.escalate is None:
        return {}
    handed_over = [float(outcome.state["answer"].outcome == "handoff")]
    if not outcome.item.escalate:
        return {"escalation.false_rate": handed_over}
    reason = reason_wanted(outcome.item)
    return {
        "escalation.recall": handed_over,
        f"escalation.by_reason.{reason}.recall": handed_over,
    }


def _retrieval(outcome: Outcome) -> Scores:
    if outcome.item.faq is None:
        return {}
    found = [passage.article.id for passage in outcome.state.get("passages", ())]
    wanted = str(outcome.item.faq)
    rank = found.index(wanted) + 1 if wanted in found else 0
    return {
        "retrieval.recall_at_1": [float(rank == 1)],
        "retrieval.recall_at_3": [float(1 <= rank <= 3)],
        "retrieval.mrr": [1 / rank if rank else 0.0],
    }


def _answers(outcome: Outcome, verdicts: Sequence[bool]) -> Scores:
    """Facts over queries with required ones; errors over queries that are not to be escalated."""
    item, answer = outcome.item, outcome.state["answer"]
    scores: Scores = {}
    if answer.outcome == "answered":
        scores["answers.words"] = [float(len(words(answer.response)))]
        scores["answers.unsupported_rate"] = [float(not supported) for supported in verdicts]
    if item.escalate:
        return scores
    said = answer.response.lower()
    if item.must_include:
        present = [fact.lower() in said for fact in item.must_include]
        scores["answers.fact_recall"] = [sum(present) / len(present)]
        scores["answers.exact"] = [float(all(present))]
    if item.must_not_include:
        forbidden = any(text.lower() in said for text in item.must_not_include)
        scores["answers.forbidden_rate"] = [float(forbidden)]
    if item.answerable is not None:
        error = "needless_refusal_rate" if item.answerable else "wrong_answer_rate"
        ways = ("abstained", "smalltalk") if item.answerable else ("answered",)
        scores[f"answers.{error}"] = [float(answer.outcome in ways)]
        if item.kind is not None:
            scores[f"abstention.{item.kind}.{error}"] = [float(answer.outcome in ways)]
    return scores

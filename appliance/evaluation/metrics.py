"""The report card: what ``appliance eval --json`` prints. Only what the golden set states is
measured."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from appliance.answering.grounding import supporting_passage
from appliance.answering.wording import DESK_SENTENCES
from appliance.domain.text import sentences
from appliance.evaluation.run import Outcome


def report(outcomes: Sequence[Outcome], model: str | None) -> dict[str, Any]:
    """All figures of a run."""
    card: dict[str, Any] = {"n": len(outcomes)}
    for name in ("category", "sentiment"):
        told = [o for o in outcomes if getattr(o.item, name) is not None]
        if told:
            card[name] = _classification(told, name)
    moody = [o for o in outcomes if o.item.sentiment is not None]
    if moody:
        card["anger"] = _anger(moody)
    escalations = [o for o in outcomes if o.item.escalate is not None]
    if escalations:
        card["escalation"] = _escalation(escalations)
    known = [o for o in outcomes if o.item.faq is not None]
    if known:
        card["retrieval"] = _retrieval(known)
    if any(o.item.answerable is not None or o.item.must_include for o in outcomes):
        card["answers"] = _answers(outcomes)
    modes = Counter(
        o.state["answer"].mode for o in outcomes if o.state["answer"].outcome == "answered"
    )
    return card | {
        "latency": _latency(outcomes),
        "tokens": _tokens(outcomes),
        "model": model,
        "mode": modes.most_common(1)[0][0] if modes else "none",
        "modes": dict(modes),
    }


def _classification(told: Sequence[Outcome], name: str) -> dict[str, Any]:
    confusion: dict[str, Counter[str]] = defaultdict(Counter)
    by_source: dict[str, list[bool]] = defaultdict(list)
    for outcome in told:
        wanted, found = getattr(outcome.item, name), outcome.state[name]  # type: ignore[literal-required]
        confusion[wanted][found] += 1
        by_source[outcome.item.source].append(wanted == found)
    return {
        "accuracy": _share([hit for hits in by_source.values() for hit in hits]),
        "n": len(told),
        "confusion": {wanted: dict(row) for wanted, row in sorted(confusion.items())},
        "by_source": {
            s: {"accuracy": _share(hits), "n": len(hits)} for s, hits in by_source.items()
        },
    }


def _anger(moody: Sequence[Outcome]) -> dict[str, Any]:
    found = [o.item.sentiment == "Angry" for o in moody if o.state["sentiment"] == "Angry"]
    wanted = [o.state["sentiment"] == "Angry" for o in moody if o.item.sentiment == "Angry"]
    return {"precision": _share(found), "recall": _share(wanted), "n": len(wanted)}


def _escalation(told: Sequence[Outcome]) -> dict[str, Any]:
    def handed_over(outcome: Outcome) -> bool:
        return outcome.state["answer"].outcome == "handoff"

    return {
        "recall": _share([handed_over(o) for o in told if o.item.escalate]),
        "false_rate": _share([handed_over(o) for o in told if not o.item.escalate]),
        "n": len(told),
    }


def _retrieval(known: Sequence[Outcome]) -> dict[str, Any]:
    ranks = []
    for outcome in known:
        found = [passage.article.id for passage in outcome.state.get("passages", ())]
        wanted = str(outcome.item.faq)
        ranks.append(found.index(wanted) + 1 if wanted in found else 0)
    return {
        "recall_at_1": _share([rank == 1 for rank in ranks]),
        "recall_at_3": _share([1 <= rank <= 3 for rank in ranks]),
        "mrr": round(float(np.mean([1 / rank if rank else 0.0 for rank in ranks])), 4),
        "n": len(ranks),
    }


def _answers(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Facts over queries with required ones; errors over queries that are not to be escalated."""
    calm = [o for o in outcomes if not o.item.escalate]
    facts = [_facts_present(o) for o in calm if o.item.must_include]
    forbidden = [
        any(text.lower() in o.state["answer"].response.lower() for text in o.item.must_not_include)
        for o in calm
        if o.item.must_not_include
    ]
    judged = [supported for o in outcomes for supported in _judged(o)]
    return {
        "fact_recall": _mean(facts),
        "forbidden_rate": _share(forbidden),
        "unsupported_rate": _share([not supported for supported in judged]),
        "wrong_answer_rate": _share(
            [o.state["answer"].outcome == "answered" for o in calm if o.item.answerable is False]
        ),
        "needless_refusal_rate": _share(
            [
                o.state["answer"].outcome in ("abstained", "smalltalk")
                for o in calm
                if o.item.answerable
            ]
        ),
        "n": sum(o.item.answerable is not None or bool(o.item.must_include) for o in calm),
    }


def _facts_present(outcome: Outcome) -> float:
    response = outcome.state["answer"].response.lower()
    wanted = outcome.item.must_include
    return sum(fact.lower() in response for fact in wanted) / len(wanted)


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
    return [
        part in verbatim or supporting_passage(part, passages) is not None
        for part in sentences(answer.response)
        if part not in own
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


def _share(hits: Sequence[bool]) -> float | None:
    return _mean([float(hit) for hit in hits])


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None

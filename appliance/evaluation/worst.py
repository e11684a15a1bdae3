"""The mistakes of a run that are worth reading first, a line each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from appliance.evaluation.scoring import Result

SAID_CHARS: Final = 60
TEXT_CHARS: Final = 90


class Mistake(NamedTuple):
    """What was wanted of a query, what came, and the query; each on one line and short."""

    wanted: str
    came: str
    text: str


class _Found(NamedTuple):
    badness: float
    wanted: str
    came: str


def worst(items: Sequence[Result], most: int) -> dict[str, list[Mistake]]:
    """At most so many mistakes of each kind, the worst first; kinds without any are left out."""
    mistakes = {}
    for kind, look in _KINDS.items():
        found = [(seen, item) for item in items if (seen := look(item)) is not None]
        found.sort(key=lambda pair: -pair[0].badness)
        if found[:most]:
            mistakes[kind] = [
                Mistake(seen.wanted, short(seen.came, SAID_CHARS), short(item.text, TEXT_CHARS))
                for seen, item in found[:most]
            ]
    return mistakes


def short(text: str, most: int) -> str:
    """A text on one line, cut where it is longer."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def _wrong_category(item: Result) -> _Found | None:
    if item.scores.get("category.accuracy") != [0.0]:
        return None
    sure = item.found["category_confidence"] or 0.0
    return _Found(sure, item.wanted["category"], f"{item.found['category']} {sure:.2f}")


def _missed_escalation(item: Result) -> _Found | None:
    if item.scores.get("escalation.recall") != [0.0]:
        return None
    (reason,) = (name.split(".")[2] for name in item.scores if ".by_reason." in name)
    # A phrase on the list is a promise, a plain request nearly one.
    badness = {"phrase": 3.0, "person": 2.0, "anger": 1.0}.get(reason, 0.0)
    return _Found(badness, f"handoff ({reason})", f"{item.outcome}, {item.found['sentiment']}")


def _false_escalation(item: Result) -> _Found | None:
    if item.scores.get("escalation.false_rate") != [1.0]:
        return None
    return _Found(0.0, "no handoff", f"handoff ({item.found['escalation_reason']})")


def _wrong_answer(item: Result) -> _Found | None:
    if item.scores.get("answers.wrong_answer_rate") != [1.0]:
        return None
    return _Found(0.0, "no answer", f"{item.mode}: {_body(item)}")


def _needless_refusal(item: Result) -> _Found | None:
    if item.scores.get("answers.needless_refusal_rate") != [1.0]:
        return None
    found = ", ".join(item.found["faqs"][:3]) or "nothing"
    return _Found(0.0, f"article {item.wanted.get('faq', '?')}", f"{item.outcome}; found {found}")


def _missing_facts(item: Result) -> _Found | None:
    said = item.response.lower()
    missing = [fact for fact in item.wanted.get("must_include", ()) if fact.lower() not in said]
    if not missing or "answers.fact_recall" not in item.scores:
        return None
    badness = 1 - item.scores["answers.fact_recall"][0]
    return _Found(badness, short(" + ".join(missing), SAID_CHARS), f"{item.outcome}: {_body(item)}")


def _body(item: Result) -> str:
    """What was said behind the opening."""
    return item.response.partition("\n\n")[2] or item.response


_KINDS: Final[dict[str, Callable[[Result], _Found | None]]] = {
    "wrong category, surest first": _wrong_category,
    "missed escalations": _missed_escalation,
    "needless escalations": _false_escalation,
    "answers where there is none": _wrong_answer,
    "needless refusals": _needless_refusal,
    "missing facts": _missing_facts,
}

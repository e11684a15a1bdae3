"""The answer record: what is needed to explain an answer later, and to compute it again.

It is taken from the graph's final state. What may hold words of the customer, or words written in
reply to them, goes into the personal part, which can be erased; so does whatever this module does
not know. Articles are the desk's own words and stay.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields, is_dataclass
from numbers import Real
from typing import Any, Final

from appliance.domain.chain import canonical
from appliance.domain.passage import Article, Passage
from appliance.domain.policy import ANSWER_MAX_TOKENS, REPLAY_TOLERANCE
from appliance.domain.query import Query, Topic, Turn
from appliance.domain.state import QueryState

FORMAT: Final = 1
"""Of the documents; a change of meaning takes another number."""

_APART: Final = frozenset({"query", "passages", "answer", "topic", "stages", "failures"})
"""Parts of the state that are not an agent's plain decision."""
_CLOSED: Final = frozenset(
    {"category", "sentiment", "intent", "escalation_reason", "language", "outcome", "mode"}
    | {"model", "flags", "citations", "failures", "tokens"}
)
"""Decisions and fields of an answer whose words are the desk's own, from a closed list."""


@dataclass(frozen=True, slots=True)
class MadeWith:
    """What an answer was made with. Digests and fingerprints are in hex.

    ``model`` and ``weights`` are None where no model took part; ``weights`` also where the model is
    remote and nobody can tell. ``prompts`` are those of ``responder``, the node that answered.
    """

    model: str | None = None
    weights: str | None = None
    prompts: str | None = None
    responder: str | None = None
    knowledge_version: int | None = None
    knowledge_digest: str | None = None
    index: str | None = None
    encoder: str | None = None
    heads: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Those that decide about answers."""
    temperature: float = 0.0
    max_tokens: int = ANSWER_MAX_TOKENS
    runtime: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Described:
    """Both parts of a record, before it has its place in the chain."""

    content: dict[str, Any]
    personal: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two records differ: a path such as ``passages.12.score``, and both values."""

    what: str
    then: Any
    now: Any


def describe(state: QueryState, made_with: MadeWith, *, seconds: float, left: bool) -> Described:
    """The record of an answer.

    :param seconds: the time from the message's arrival to its answer.
    :param left: whether the customer left or the time was up, so that the model was stopped.
    """
    query, answer, topic = state["query"], state["answer"], state.get("topic")
    decisions, private = _parted({k: v for k, v in state.items() if k not in _APART})
    told, words = _parted(plain(answer))
    if topic is not None:
        decisions["topic"] = {"article_id": topic.article_id, "attempts": topic.attempts}
    cited = {citation.id for citation in answer.citations}
    return Described(
        content={
            "format": FORMAT,
            "made_with": plain(made_with),
            "decisions": decisions,
            "passages": [_passage(p, p.article.id in cited) for p in state.get("passages", ())],
            "answer": told,
            "failures": plain(state.get("failures", ())),
            "stages": plain(state.get("stages", {})),
            "seconds": round(seconds, 4),
            "left": left,
        },
        personal={
            "query": plain(query),
            "decisions": private | ({"topic": topic.question} if topic is not None else {}),
            "answer": words,
        },
    )


def asked(personal: Mapping[str, Any]) -> Query:
    """The query with its context, as the graph received it."""
    found = personal["query"]
    given = {
        f.name: tuple(value) if isinstance(value := found[f.name], list) else value
        for f in fields(Query)
        if f.name in found
    }
    topic = found["topic"]
    return Query(
        **given
        | {
            "history": tuple(Turn(**turn) for turn in found["history"]),
            "topic": Topic(**topic) if topic is not None else None,
            "recent_articles": frozenset(found["recent_articles"]),
        }
    )


def article_digest(article: Article) -> str:
    """SHA-256, in hex, of everything that an article says."""
    told = [article.id, article.question, article.answer, article.category]
    return hashlib.sha256(canonical(told).encode()).hexdigest()


def outcome_of(content: Mapping[str, Any], personal: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs of one query are compared by: everything but times, token counts, and
    ``made_with``, which is why they differ."""
    answer = {**content["answer"], **personal["answer"]}
    answer.pop("tokens", None)
    passages = content["passages"]
    return {
        "decisions": _joined(content["decisions"], personal["decisions"]),
        "passages": {
            passage["id"]: {"rank": rank, **{k: passage[k] for k in ("score", "digest", "nearest")}}
            for rank, passage in enumerate(passages, start=1)
        },
        "answer": answer,
        "failures": content["failures"],
    }


def differences(then: Any, now: Any, what: str = "") -> Iterator[Difference]:
    """Every place where two documents differ, in order. Numbers that differ by no more than
    ``REPLAY_TOLERANCE`` are the same."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*then, *now]):
            inner = f"{what}.{key}" if what else str(key)
            yield from differences(then.get(key), now.get(key), inner)
    elif isinstance(then, float) and isinstance(now, float):
        if abs(then - now) > REPLAY_TOLERANCE:
            yield Difference(what, then, now)
    elif then != now:
        yield Difference(what, then, now)


def plain(value: Any) -> Any:
    """A value in JSON's own types. What has no place there is named by its type: a record that
    cannot be written would cost the customer the answer."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, AbstractSet):
        return sorted((plain(inner) for inner in value), key=str)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain(inner) for inner in value]
    return f"({type(value).__name__})"


def _parted(found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The open and the personal ones: numbers and truth values cannot hold anybody's words."""
    told: dict[str, Any] = {}
    private: dict[str, Any] = {}
    for key, value in found.items():
        harmless = value is None or isinstance(value, Real)
        (told if key in _CLOSED or harmless else private)[key] = plain(value)
    return told, private


def _passage(passage: Passage, cited: bool) -> dict[str, Any]:
    """A passage; of a cited article the whole text, because what was said came from there."""
    article = passage.article
    told = {
        "id": article.id,
        "title": article.question,
        "category": article.category,
        "score": plain(passage.score),
        "nearest": passage.nearest,
        "digest": article_digest(article),
    }
    return told | ({"text": article.answer} if cited else {})


def _joined(decisions: Mapping[str, Any], private: Mapping[str, Any]) -> dict[str, Any]:
    topic = decisions.get("topic")
    joined = {**decisions, **private}
    if topic is not None:
        joined["topic"] = {**topic, "question": private.get("topic")}
    return joined

"""Whether the parts of a source have changed places: who acts, what is whose, "and" and "or"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appliance.answering import operators as op
from appliance.answering.aligned import Aligned
from appliance.answering.lexicon import listed
from appliance.answering.tokens import Token

_TELLING: Final = frozenset(
    {op.MUST, op.SHOULD, op.ALWAYS, op.USUALLY, op.SOMETIMES, op.OFTEN, op.RARELY}
)
"""Operators that belong to one clause."""
_GETTING: Final = listed("get receive obtain have give send pay hear answer reply")


def mixed_choice(aligned: Aligned) -> str | None:
    """Whether "and" has become "or", or the other way round."""
    claim, source = aligned.claim, aligned.source
    if any(op.NEG in token.operators for token in claim):
        return None  # "not A or B" is "not A and not B"
    for at, token in enumerate(claim):
        if token.text not in ("and", "or"):
            continue
        other = "or" if token.text == "and" else "and"
        before, after = _neighbour(claim, at, -1), _neighbour(claim, at, 1)
        if before is None or after is None:
            continue
        for one in aligned.matches.get(before, ()):
            for two in aligned.matches.get(after, ()):
                low, high = sorted((one, two))
                between = source[low + 1 : high]
                if any(t.text == other for t in between) and not any(t.is_content for t in between):
                    return f"{token.text} for {other}"
    return None


def _neighbour(tokens: Sequence[Token], at: int, step: int) -> int | None:
    place = at + step
    while 0 <= place < len(tokens) and tokens[place].kind != "mark":
        if tokens[place].is_content:
            return place
        place += step
    return None


def crossed(aligned: Aligned) -> str | None:
    """Whether two clauses of the claim have each a part of two clauses of the source."""
    claim, source = aligned.claim, aligned.source
    spread: dict[int, set[int]] = {}
    repeated = {
        place
        for place in range(len(source))
        if sum(place in places for places in aligned.matches.values()) > 1
    }
    for at, places in aligned.matches.items():
        if repeated & set(places):
            continue
        clauses = {source[p].segment for p in places}
        if len(clauses) == 1 and not claim[at].is_light and claim[at].kind == "word":
            spread.setdefault(claim[at].segment, set()).update(clauses)
    for token in claim:
        for each in set(token.operators) & _TELLING:
            clauses = {t.segment for t in source if each in t.operators}
            if len(clauses) == 1:
                spread.setdefault(token.segment, set()).update(clauses)
    parts = list(spread.values())
    for number, one in enumerate(parts):
        for two in parts[number + 1 :]:
            if len(one & two) > 1:
                return "parts of two clauses are mixed"
    return None


def said_again(aligned: Aligned) -> str | None:
    """Whether "and restart" is added by a word that stands for another one already."""
    claim = aligned.claim
    for segment in {token.segment for token in claim}:
        inside = [t for t in claim if t.segment == segment]
        content = [t for t in inside if t.is_content]
        if len(content) != 1 or inside[0].text not in ("and", "then"):
            continue
        places = aligned.matches.get(content[0].at, [])
        taken = [p for at, found in aligned.matches.items() if at != content[0].at for p in found]
        if places and set(places) <= set(taken) and content[0].part == "verb":
            return f"{content[0].text} is said twice"
    return None


def _actors(tokens: Sequence[Token]) -> dict[int, str]:
    """Segment -> who acts in it, "we" or "you", where it says so."""
    found: dict[int, str] = {}
    for at, token in enumerate(tokens):
        before = tokens[at - 1] if at else None
        first = before is None or before.segment != token.segment or before.kind == "operator"
        if token.text in ("we", "you") and first:
            found[token.segment] = token.text
        elif token.text in ("us", "you") and before is not None and before.text == "by":
            found[token.segment] = "we" if token.text == "us" else "you"
    return found


def other_actor(aligned: Aligned) -> str | None:
    """Whether "we" do what in the source "you" do. To receive is to be sent, so that is let be."""
    claim, source = aligned.claim, aligned.source
    said, told = _actors(claim), _actors(source)
    for segment, actor in said.items():
        words = [at for at, t in enumerate(claim) if t.segment == segment and t.is_content]
        if not words:
            continue
        act = claim[words[0]]
        same = any(act.forms & source[p].forms for p in aligned.matches.get(words[0], ()))
        if any(_gets(claim[at]) for at in words) and not same:
            continue
        theirs = {told.get(source[place].segment) for place in aligned.matches.get(words[0], ())}
        got = any(_gets(t) for t in source if told.get(t.segment) not in (None, actor))
        if theirs and actor not in theirs and None not in theirs and (same or not got):
            return f"{actor} do it"
    return None


def _gets(token: Token) -> bool:
    return token.is_content and bool(
        token.forms & _GETTING or any(part.forms & _GETTING for part in token.parts)
    )


def other_owner(aligned: Aligned) -> str | None:
    """Whether "your" stands where the source has "our", or the other way round."""
    for at, places in aligned.matches.items():
        said = {t.text for t in aligned.claim[max(0, at - 2) : at]} & {"our", "your"}
        if len(said) != 1:
            continue
        told = [
            {t.text for t in aligned.source[max(0, p - 2) : p]} & {"our", "your"} for p in places
        ]
        if all(owner and owner != said for owner in told):
            return f"{said.pop()} {aligned.claim[at].text}"
    return None

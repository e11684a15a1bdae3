"""Operators that came, went or stand for something else: conditions, times, permissions, duties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from appliance.answering import operators as op
from appliance.answering.aligned import Aligned, live
from appliance.answering.scopes import (
    ON_CLAUSES,
    addresses,
    answers,
    argument,
    commands,
    following,
    passive,
    segment,
    used,
)
from appliance.answering.tokens import Token

_ON_NUMBERS: Final = frozenset({op.WITHIN, op.BY, op.LEAST, op.MORE, op.LESS, op.ABOUT})
_FREE: Final = frozenset({op.WHY, op.EXACT, op.WILL, op.ELSE})
_MAY_COME: Final = _FREE | {op.COND, op.CAN, op.WHILE}
"""Operators that make a sentence say no more than its source does."""
_MAY_GO: Final = _FREE | {op.ALL, op.CERTAIN, op.SEVERAL, op.ALWAYS}
NEAR: Final = 2
"""Words within which a negation belongs to a permission."""
FAR: Final = 4
"""Words within which "before" belongs to a number."""
_DUTIES: Final = frozenset({op.MUST, op.SHOULD})
_MODAL: Final = frozenset({op.CAN, op.MAY, op.MUST, op.SHOULD})

Kind = Literal["turned", "moved", "path", "operator", "mixed", "actor", "duty"]


class Objection(NamedTuple):
    """What is wrong, of which kind."""

    kind: Kind
    what: str


def changed_operators(aligned: Aligned) -> list[Objection]:
    """Each operator but the negations that one side has and the other has not, or has elsewhere."""
    wrong: list[Objection] = []
    come: set[str] = set()
    claim, source = aligned.claim, aligned.source
    told = [
        (each, at)
        for at in used(aligned)
        for each in source[at].operators
        if each != op.NEG
        if live(source, aligned.covered, at)
    ]
    duties = {each for each, _ in told} & _MODAL
    turned = _told_from_the_other_end(aligned, told)
    for each, at in _exact_first(claim, {each for each, _ in told}):
        token = claim[at]
        if at in turned:
            continue
        meant = answers(aligned, at)
        alike = sorted(
            (pair for pair in told if _alike(aligned, each, at, *pair)),
            key=lambda pair: (not meant & segment(source, pair[1]), pair[0] != each),
        )
        fitting = next((p for p in alike if _same_scope(aligned, each, at, p[1])), None)
        if fitting is not None:
            told.remove(fitting)
        elif alike and each not in _MAY_COME:
            wrong.append(Objection("operator", f"{token.text} belongs to something else"))
        elif not _may_come(aligned, each, at):
            kind: Kind = "duty" if each in _DUTIES and not duties else "operator"
            wrong.append(Objection(kind, f"{token.text} is added"))
        else:
            come.add(each)
    for each, at in told:
        if not _may_leave(aligned, each, at):
            wrong.append(Objection("operator", f"{source[at].text} is left out"))
    modal = next((source[at].text for each, at in told if each in _MODAL), None)
    if come & _MODAL and modal is not None:
        wrong.append(Objection("operator", f"another word for {modal}"))
    return wrong


def _alike(aligned: Aligned, said: str, at: int, told: str, place: int) -> bool:
    """Whether two operators say the same where they stand."""
    if op.alike(said, told):
        return True
    both = _around(aligned.claim, at, NEAR) & _around(aligned.source, place, NEAR)
    if {said, told} <= _MODAL - {op.SHOULD}:
        # What may not be must not be; what may be up to so much must be within it.
        return bool(both & {op.NEG, op.WITHIN})
    # At least a day before is no later than a day before.
    both = _around(aligned.claim, at, FAR) & _around(aligned.source, place, FAR)
    return {said, told} <= {op.BY, op.LEAST} and op.BEFORE in both


def _around(tokens: Sequence[Token], at: int, reach: int) -> set[str]:
    """The operators within so many words."""
    near = tokens[max(0, at - reach) : at + reach + 1]
    return {each for token in near for each in token.operators}


def _told_from_the_other_end(aligned: Aligned, told: list[tuple[str, int]]) -> set[int]:
    """Places of the claim where "after A, B" is the source's "A before B", or its "A and B".

    What answers to them is taken from ``told``.
    """
    claim, source = aligned.claim, aligned.source
    found: set[int] = set()
    for at, token in enumerate(claim):
        for each, converse in ((op.AFTER, op.BEFORE), (op.BEFORE, op.AFTER)):
            if each not in token.operators or any(kind == each for kind, _ in told):
                continue
            inside = following(claim, at)
            outside = {i for i, t in enumerate(claim) if t.is_content} - inside
            first = {p for i in inside for p in aligned.matches.get(i, ())}
            second = {p for i in outside for p in aligned.matches.get(i, ())}
            for kind, place in list(told):
                there = following(source, place)
                if kind == converse and second & there and first - there and not first & there:
                    told.remove((kind, place))
                    found.add(at)
            if each == op.BEFORE:
                first, second = second, first
            if first and second and max(first) < min(second):
                between = source[max(first) + 1 : min(second)]
                if any(t.text in ("and", "then") for t in between):
                    found.add(at)
    return found


def _exact_first(claim: Sequence[Token], told: set[str]) -> list[tuple[str, int]]:
    """The claim's operators, those the source has itself before those it has a likeness of."""
    found = [(each, at) for at, t in enumerate(claim) for each in t.operators if each != op.NEG]
    return sorted(found, key=lambda pair: pair[0] not in told)


def _same_scope(aligned: Aligned, operator: str, said: int, told: int) -> bool:
    """Whether an operator of the claim stands on the same words as one of the source."""
    if operator in _ON_NUMBERS:
        one, two = argument(aligned.claim, said), argument(aligned.source, told)
        return one is None or two is None or two in aligned.matches.get(one, (two,))
    if operator in ON_CLAUSES:
        words = following(aligned.claim, said)
        answers = {place for word in words for place in aligned.matches.get(word, ())}
        return not answers or bool(answers & following(aligned.source, told))
    return True


def _may_come(aligned: Aligned, operator: str, at: int) -> bool:
    """Whether an operator of the claim may be missing in the source."""
    claim, source = aligned.claim, aligned.source
    if operator in _MAY_COME:
        return True
    if operator == op.MUST and claim[at].text.startswith(("need", "require")):
        after = claim[at + 1] if at + 1 < len(claim) else None
        if after is not None and after.kind == "fact":
            return True
    if operator in (op.MUST, op.SHOULD):
        return commands(source) or (operator == op.MUST and passive(source))
    if operator in (op.WITHIN, op.AFTER):
        # "In 5 days" for "within 5 days", "after delivery" for "of delivery".
        word = argument(claim, at)
        near = {
            token.text
            for p in aligned.matches.get(word or 0, ())
            for token in source[max(0, p - 2) : p]
        }
        return bool(near & ({"in"} if operator == op.WITHIN else {"of", "from"}))
    if operator == op.ALL and claim[at].text in ("any", "each"):
        return True
    if operator == op.ALL and claim[at].text == "every":
        after = claim[at + 1] if at + 1 < len(claim) else None
        return after is not None and (after.kind == "fact" or after.is_person)
    return False


def _may_leave(aligned: Aligned, operator: str, at: int) -> bool:
    """Whether an operator of the source may be missing in the claim."""
    claim, source = aligned.claim, aligned.source
    if operator in _MAY_GO:
        return True
    if operator in (op.CAN, op.MUST, op.SHOULD):
        told = segment(source, at)
        clauses = {claim[i].segment for i, places in aligned.matches.items() if told & set(places)}
        return any(commands([t for t in claim if t.segment == clause]) for clause in clauses) or (
            operator == op.CAN and source[at].text == "possible" and addresses(claim)
        )
    if operator in (op.COND, op.WHILE):
        # "Block a lost card" for "if a card is lost, block it".
        words = {p for p in following(source, at) if not source[p].is_light}
        return bool(words) and words <= aligned.covered
    if operator == op.WITHIN:
        word = argument(source, at)
        places = [place for place, found in aligned.matches.items() if word in found]
        return any(place and claim[place - 1].text == "in" for place in places)
    if operator == op.AFTER:
        word = argument(source, at)
        places = [place for place, found in aligned.matches.items() if word in found]
        near = {token.text for p in places for token in claim[max(0, p - 2) : p]}
        return bool(near & {"of", "from"})
    return False

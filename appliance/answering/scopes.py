"""How far a word reaches in its sentence: clauses, what follows, what is negated."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from appliance.answering import operators as op
from appliance.answering.aligned import Aligned
from appliance.answering.lexicon import lexicon, listed
from appliance.answering.tokens import Token

ON_CLAUSES: Final = frozenset({op.COND, op.BEFORE, op.AFTER, op.UNTIL, op.EXCEPT, op.WHILE})
_GOVERNING: Final = frozenset({op.CAN, op.MAY, op.MUST, op.SHOULD, op.WILL})
_STATED: Final = ("is ", "are ", "be ", "forbid", "prohibit", "banned")
_AUXILIARIES: Final = listed("is are was were has have be been had does do")


def used(aligned: Aligned) -> list[int]:
    """Places of the source that were not left out."""
    return [at for at in range(len(aligned.source)) if at not in aligned.gone]


def segment(tokens: Sequence[Token], at: int) -> set[int]:
    """Places of the words of meaning in the same clause; of the one before where it has none."""
    for clause in (tokens[at].segment, tokens[at].segment - 1):
        found = {i for i, t in enumerate(tokens) if t.segment == clause and t.is_content}
        if found:
            return found
    return set()


def negated(tokens: Sequence[Token], at: int) -> set[int]:
    """Places of the words under a negation: its clause and what "or" adds; "otherwise", "nothing"
    and what is stated of something reach back."""
    found = segment(tokens, at)
    for place in range(at + 1, len(tokens)):
        if tokens[place].kind == "mark":
            break
        if tokens[place].text == "or":
            found |= segment(tokens, place)
    if tokens[at].text.startswith(_STATED) or (at and tokens[at - 1].text in _AUXILIARIES):
        # "A, B or C is forbidden."
        start = next((i for i in range(at, 0, -1) if tokens[i - 1].operators), 0)
        found |= {i for i in range(start, at) if tokens[i].is_content}
    if op.ELSE in tokens[at].operators or tokens[at].text in ("nothing", "none"):
        before = [i for i in range(at) if tokens[i].is_content and i not in found]
        found |= {i for i in before if tokens[i].segment == tokens[before[-1]].segment}
    return found


def answers(aligned: Aligned, at: int) -> set[int]:
    """Places of the source that answer to the clause around a place of the claim."""
    return {place for word in segment(aligned.claim, at) for place in aligned.matches.get(word, ())}


def argument(tokens: Sequence[Token], at: int) -> int | None:
    """The next word of meaning; of "or more", the one before."""
    if tokens[at].text.startswith(("or ", "and ")):
        return next((i for i in range(at - 1, -1, -1) if tokens[i].kind == "fact"), None)
    return next((i for i in range(at + 1, len(tokens)) if tokens[i].is_content), None)


def following(tokens: Sequence[Token], at: int) -> set[int]:
    """Places of the words of meaning between an operator and the end of its clause."""
    found: set[int] = set()
    for place in range(at + 1, len(tokens)):
        token = tokens[place]
        if token.kind == "mark" and token.text != ">" and found:
            break
        if set(token.operators) & ON_CLAUSES and found:
            break
        if token.is_content:
            found.add(place)
    return found


def commands(tokens: Sequence[Token]) -> bool:
    """Whether a clause of it is an imperative."""
    verbs = lexicon().verbs
    fresh = True
    for at, token in enumerate(tokens):
        if fresh and token.kind in ("word", "operator"):
            after = tokens[at + 1] if at + 1 < len(tokens) else None
            governed = after is not None and (
                bool(set(after.operators) & _GOVERNING) or after.text in _AUXILIARIES
            )
            if token.kind == "word" and token.text.split()[0] in verbs and not governed:
                return True
            fresh = token.text in ("not", "never") or op.WHY in token.operators
        elif token.kind == "filler" and token.text not in ("please", "then", "and", "do", "also"):
            fresh = False
        if token.kind == "mark" or token.text in ("and", "or", "then"):
            fresh = True
    return False


def passive(tokens: Sequence[Token]) -> bool:
    """Whether it tells what is done, without a word of what may or must be."""
    modal = {op.CAN, op.MAY, op.MUST, op.SHOULD, op.WILL, op.USUALLY, op.SOMETIMES}
    return not any(modal & set(token.operators) for token in tokens) and any(
        one.text in ("is", "are") and two.text.endswith(("ed", "en", "id", "nt", "ld"))
        for one, two in pairwise(tokens)
    )


def addresses(tokens: Sequence[Token]) -> bool:
    """Whether it speaks to the reader."""
    return any(token.text in ("you", "your") for token in tokens)

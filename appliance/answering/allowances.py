"""The single word that a sentence may leave out all the same, because little hangs on it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from appliance.answering import operators as op
from appliance.answering.aligned import Aligned
from appliance.answering.lexicon import lexicon
from appliance.answering.tokens import Token


def forgive(found: Aligned, rest: Sequence[Token]) -> None:
    """A single word left out that carries little: who does what is done, a bare verb, or the first
    part of a name that the passage itself shortens."""
    if found.missing or len(found.dropped) != 1:
        return
    token = found.dropped[0]
    if token.kind != "word" or token.proper or op.NEG in token.operators:
        return
    if (
        token.text == "hours"
        or _is_agent(found, token)
        or _is_finite(found.source, token.at)
        or _is_shortened(found, token, rest)
    ):
        found.dropped.clear()


def _is_shortened(found: Aligned, token: Token, rest: Sequence[Token]) -> bool:
    """Whether the passage calls "loyalty points" just "points" elsewhere, and no other kind of
    points."""
    head = found.source[token.at + 1] if token.at + 1 < len(found.source) else None
    if token.part != "noun" or token.text.endswith(("ing", "ed")):
        return False
    if head is None or not head.is_content or head.at not in found.covered or head.part != "noun":
        return False
    bare = False
    for before, other in pairwise([Token(".", "mark"), *rest]):
        if other.is_content and other.forms & head.forms:
            if before.kind == "word" and not before.forms & token.forms:
                return False
            bare = bare or before.kind != "word"
    return bare


def _is_agent(found: Aligned, token: Token) -> bool:
    """Whether it is who acts in a clause that the claim turns into the passive."""
    source, claim = found.source, found.claim
    first = next((t for t in source if t.segment == token.segment and t.is_content), None)
    act = next((t for t in source[token.at + 1 :] if t.kind != "operator"), None)
    if first is not token or act is None or not act.forms & lexicon().verbs:
        return False
    places = [at for at, found_at in found.matches.items() if act.at in found_at]
    return any(
        place
        and not _denies(claim, claim[place].segment)
        and (
            claim[place].text.startswith("be ")
            or claim[place - 1].text in ("is", "are", "be", "been", "was", "were")
        )
        for place in places
    )


def _denies(tokens: Sequence[Token], segment: int) -> bool:
    return any(op.NEG in token.operators for token in tokens if token.segment == segment)


def _is_finite(tokens: Sequence[Token], at: int) -> bool:
    """Whether the word is a verb with its subject in front of it."""
    before = tokens[at - 1] if at else None
    if before is None or before.kind not in ("word", "fact") or tokens[at].text.endswith("ing"):
        return False
    following = tokens[at + 1] if at + 1 < len(tokens) else None
    return bool(tokens[at].forms & lexicon().verbs) and (
        following is None or following.kind in ("filler", "fact", "operator", "mark")
    )

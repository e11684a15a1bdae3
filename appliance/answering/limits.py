"""All that an aligned sentence may still get wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from appliance.answering import operators as op
from appliance.answering.aligned import Aligned
from appliance.answering.changes import Kind, Objection, changed_operators
from appliance.answering.clauses import crossed, mixed_choice, other_actor, other_owner, said_again
from appliance.answering.figures import changed_path, moved_numbers, turned_range
from appliance.answering.scopes import negated, used
from appliance.answering.tokens import Token


def objections(aligned: Aligned) -> list[Objection]:
    """All that the sentence says otherwise than its source."""
    found: list[Objection | None] = [
        _objection("turned", _turned(aligned)),
        _objection("moved", moved_numbers(aligned)),
        _objection("path", changed_path(aligned)),
        _objection("mixed", mixed_choice(aligned)),
        _objection("mixed", crossed(aligned)),
        _objection("mixed", said_again(aligned)),
        _objection("moved", turned_range(aligned)),
        _objection("actor", other_actor(aligned)),
        _objection("actor", other_owner(aligned)),
        *changed_operators(aligned),
    ]
    return [each for each in found if each is not None]


def _objection(kind: Kind, what: str | None) -> Objection | None:
    return None if what is None else Objection(kind, what)


def _negations(tokens: Sequence[Token], places: Iterable[int]) -> list[int]:
    return [at for at in places if op.NEG in tokens[at].operators]


def _turned(aligned: Aligned) -> str | None:
    """Negations: as many on both sides, an opposite word counting as one, and on the same words."""
    claim, source = aligned.claim, aligned.source
    said = _negations(claim, range(len(claim)))
    told = _negations(source, used(aligned))
    if (len(said) + len(aligned.opposites) - len(told)) % 2:
        return "negation"
    if aligned.opposites or len(said) != len(told):
        return None
    for at in said:
        meant = {place for word in negated(claim, at) for place in aligned.matches.get(word, ())}
        if meant and not any(meant & negated(source, place) for place in told):
            return "negation of something else"
    return None

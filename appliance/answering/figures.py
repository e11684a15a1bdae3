"""Whether numbers and menu paths stand by the words they stand by in the source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appliance.answering.aligned import Aligned
from appliance.answering.scopes import answers, segment, used
from appliance.answering.tokens import Token

UNIT_NEAR: Final = 3
"""Words within which a number and its unit belong together."""


def moved_numbers(aligned: Aligned) -> str | None:
    """Each number has to stand by the words it stands by in the source."""
    claim, source = aligned.claim, aligned.source
    numbers = [at for at, token in enumerate(source) if token.kind == "fact"]
    for at, token in enumerate(claim):
        if token.kind != "fact" or at not in aligned.matches:
            continue
        places = aligned.matches.get(at, [])
        unit = _unit(claim, at)
        units = aligned.matches.get(unit, []) if unit is not None else []
        if unit is not None and units:
            # The unit is near one of them, or named for all.
            places = [p for p in places if any(abs(p - a) <= UNIT_NEAR for a in units)]
            if not places:
                return f"{token.text} {claim[unit].text}"
        beside = {t.text for t in claim if t.segment == token.segment and t.kind == "fact"}
        rivals = [
            p
            for p in numbers
            if source[p].text not in beside and _written_with(source[p]) == _written_with(token)
        ]
        if not places or not rivals:
            continue
        around = answers(aligned, at) - set(places) - set(units)
        own = max(len(around & segment(source, p)) for p in places)
        other = max(len(around & segment(source, p)) for p in rivals)
        if other > own:
            return f"{token.text} belongs to something else"
    return None


def _written_with(token: Token) -> str:
    """What a number is written with: a currency, a percent sign, letters, or nothing."""
    return "".join(c for c in token.text if not c.isdigit() and c not in ".,:-")


def _unit(tokens: Sequence[Token], at: int) -> int | None:
    """The word behind a number, unless the number is an amount, an address or a code."""
    if not tokens[at].text.replace(".", "").replace(":", "").isdigit() or at + 1 >= len(tokens):
        return None
    return at + 1 if tokens[at + 1].kind == "word" else None


def turned_range(aligned: Aligned) -> str | None:
    """Whether "from 8 to 18" has become "from 18 to 8", or numbers in a row have changed places."""
    said = [token.text for token in aligned.claim if token.kind == "fact"]
    told = [token.text for token in aligned.source if token.kind == "fact"]
    words_said = [t.text for t in aligned.claim if t.kind not in ("fact", "mark")]
    words_told = [t.text for t in aligned.source if t.kind not in ("fact", "mark")]
    if words_said == words_told and said != told:
        return "numbers have changed places"
    for one, two in _ranges(aligned.claim):
        if (two, one) in _ranges(aligned.source):
            return f"{one} to {two}"
    return None


def _ranges(tokens: Sequence[Token]) -> set[tuple[str, str]]:
    return {
        (one.text, two.text)
        for one, between, two in zip(tokens, tokens[1:], tokens[2:], strict=False)
        if one.kind == two.kind == "fact" and between.text in ("to", "and", "until")
    }


def changed_path(aligned: Aligned) -> str | None:
    """Menu paths: the same joints between the same words."""
    if _joints(aligned.claim) != _joints([aligned.source[at] for at in used(aligned)]):
        return "menu path"
    return None


def _joints(tokens: Sequence[Token]) -> set[tuple[str, str]]:
    return {
        (tokens[at - 1].text, tokens[at + 1].text)
        for at, token in enumerate(tokens)
        if token.text == ">" and 0 < at < len(tokens) - 1
    }

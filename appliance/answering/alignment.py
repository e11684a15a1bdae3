"""Which word of a sentence answers to which word of its source, and what of the source is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appliance.answering.aligned import DETERMINERS, PRONOUNS, Aligned, stops
from appliance.answering.allowances import forgive
from appliance.answering.lexicon import listed, opposed
from appliance.answering.matching import counterparts, opposites, same
from appliance.answering.omissions import leave_out
from appliance.answering.tokens import Token

MISSING_MAX: Final = 4
"""Words without a counterpart above which an alignment is not worth finishing."""
BORROWED: Final = 1
"""Words that a claim may take from another sentence of the passage: the name of what is spoken
of."""
BORROWED_FOR_PRONOUN: Final = 2
"""The same where the source has a pronoun for it."""
_LINKING: Final = listed("for in on at with within from to of by under near outside inside")


def align(
    claim: Sequence[Token],
    source: Sequence[Token],
    rest: Sequence[Token] = (),
) -> Aligned:
    """Lay a claim over its source.

    :param rest: the other sentences of the passage: what a pronoun of the source may stand for, and
        where a thing is called by its short name.
    """
    found = Aligned(list(claim), list(source))
    borrowed: list[Token] = []
    pronoun = any(token.text in PRONOUNS for token in source)
    for at, token in enumerate(claim):
        if not token.is_content:
            continue
        places = counterparts(token, source)
        if not places:
            places = opposites(token, source)
            if places:
                found.opposites.add(at)
        if places:
            found.matches[at] = places
        elif token.is_light or token.is_person or (token.text == "1" and _has_article(source)):
            continue
        elif _names_topic(claim, at, pronoun=pronoun) and counterparts(token, rest):
            borrowed.append(token)
        else:
            found.missing.append(token)
    if len(found.missing) > MISSING_MAX or any(t.kind == "fact" for t in found.missing):
        return found
    _drop_strays(found)
    _cover(found)
    _turn_opposites(found)
    leave_out(found)
    forgive(found, rest)
    _settle(found)
    if found.dropped or len(borrowed) > (BORROWED_FOR_PRONOUN if pronoun else BORROWED):
        found.missing += borrowed
    return found


def _has_article(source: Sequence[Token]) -> bool:
    return any(token.text.split()[0] in ("a", "an", "per") for token in source)


def _names_topic(claim: Sequence[Token], at: int, *, pronoun: bool) -> bool:
    """Whether a word may be the name of what is spoken of, as in "the car is picked up". Behind a
    preposition it limits: "for members".

    :param pronoun: the source has one, which the name may stand for.
    """
    token = claim[at]
    if token.kind != "word" or token.part != "noun" or token.proper:
        return False
    before = [other.text for other in claim[max(0, at - 2) : at]]
    named = pronoun or (before[-1:] and before[-1] in DETERMINERS)
    return bool(named) and not _LINKING & set(before)


def _drop_strays(found: Aligned) -> None:
    """A word whose only counterpart is a distant meaning in a clause that tells nothing else of the
    claim has none."""
    source = found.source
    for at, places in list(found.matches.items()):
        token = found.claim[at]
        if token.kind == "fact" or at in found.opposites:
            continue
        if any(token.forms & source[p].forms or token.stem == source[p].stem for p in places):
            continue
        others = {
            source[p].segment for other, ps in found.matches.items() if other != at for p in ps
        }
        alone = [
            p
            for p in places
            if not any(
                t.segment == source[p].segment and t.is_content and not t.is_light and t.at != p
                for t in source
            )
        ]
        if not alone and not any(source[p].segment in others for p in places):
            del found.matches[at]
            if not token.is_light and not token.is_person:
                found.missing.append(token)


def _turn_opposites(found: Aligned) -> None:
    """A word of the source that only the opposite of a word of the claim can tell."""
    for place, other in enumerate(found.source):
        if other.kind != "word" or place in found.covered:
            continue
        for at, token in enumerate(found.claim):
            if token.kind != "word" or not opposed(token.forms, other.forms):
                continue
            if not any(token.forms & found.source[p].forms for p in found.matches.get(at, ())):
                found.matches[at] = [place]
                found.opposites.add(at)
                found.covered.add(place)
                break


def _cover(found: Aligned) -> None:
    content = [token for token in found.claim if token.is_content]
    for at, token in enumerate(found.source):
        if not token.is_content:
            continue
        whole = any(same(token, other) for other in content)
        if not whole and token.parts:
            whole = all(any(same(part, other) for other in content) for part in token.parts)
        if not whole:
            whole = any(token.forms & part.forms for one in content for part in one.parts) or any(
                at in found.matches[place] for place in found.opposites
            )
        if whole:
            found.covered.add(at)
    _uncover_echoes(found)


def _uncover_echoes(found: Aligned) -> None:
    """A clause of which the claim repeats only what it repeats of another one, too, is not told."""
    tokens = found.source
    elsewhere: dict[int, set[int]] = {}
    for places in found.matches.values():
        for place in places:
            segments = {tokens[p].segment for p in places}
            elsewhere.setdefault(place, set()).update(segments - {tokens[place].segment})
    for segment in {token.segment for token in tokens}:
        inside = [
            at
            for at, token in enumerate(tokens)
            if token.segment == segment and token.is_content and not token.is_light
        ]
        told = [at for at in inside if at in found.covered]
        if len(told) < len(inside) and all(elsewhere.get(at) for at in told):
            found.covered.difference_update(told)
    content = [at for at, token in enumerate(tokens) if token.is_content and not token.is_light]
    echoes = {
        place
        for places in found.matches.values()
        for place in places
        if len(set(places) & found.covered) > 1
    }
    for before, at, after in zip(content, content[1:], content[2:], strict=False):
        if at in echoes and before not in found.covered and after not in found.covered:
            found.covered.discard(at)


def _settle(found: Aligned) -> None:
    """What the claim says has to stand in parts that were not left out, and every sentence of the
    source has to give something."""
    told = found.covered - found.gone
    for at, places in found.matches.items():
        if not set(places) & told and not found.claim[at].is_light:
            found.missing.append(found.claim[at])
    start = 0
    for at, token in enumerate(found.source):
        if stops(token) or at == len(found.source) - 1:
            if not any(place in told for place in range(start, at + 1)):
                found.dropped.append(token)
            start = at + 1

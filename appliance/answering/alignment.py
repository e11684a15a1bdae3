"""Which word of a sentence answers to which word of its source, and what of the source is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Final

from appliance.answering import operators as op
from appliance.answering.lexicon import lexicon, opposed
from appliance.answering.reading import MEMO, Token, read

PRONOUNS: Final = frozenset("it they this these those them its their that he she".split())
MISSING_MAX: Final = 4
"""Words without a counterpart above which an alignment is not worth finishing."""
BORROWED: Final = 1
"""Words that a claim may take from another sentence of the passage: the name of what is spoken
of."""
BORROWED_FOR_PRONOUN: Final = 2
"""The same where the source has a pronoun for it."""
_DETERMINERS: Final = frozenset(
    "the a an your our you we they it this that these those my their its no he she i".split()
)
_PLACING: Final = frozenset("for in on at during with within outside from until under".split())


@dataclass(slots=True)
class Aligned:
    """A sentence laid over a part of its source."""

    claim: list[Token]
    source: list[Token]
    matches: dict[int, list[int]] = field(default_factory=dict)
    """Place in the claim -> places in the source of the words that say the same."""
    opposites: set[int] = field(default_factory=set)
    """Places of the claim whose only counterpart is the opposite word."""
    missing: list[Token] = field(default_factory=list)
    """Words of the claim without a counterpart."""
    covered: set[int] = field(default_factory=set)
    """Places of the source that the claim repeats."""
    gone: set[int] = field(default_factory=set)
    """Places of the source in parts that an answer may leave out."""
    dropped: list[Token] = field(default_factory=list)
    """Words of the source that the claim leaves out and may not."""


@lru_cache(MEMO)
def joined(sentences: tuple[str, ...]) -> tuple[Token, ...]:
    """The tokens of neighbouring sentences as one text, with a full stop between them."""
    tokens: list[Token] = []
    for number, sentence in enumerate(sentences):
        segment = tokens[-1].segment + 1 if tokens else 0
        if tokens and not _stops(tokens[-1]):
            tokens.append(Token(".", "mark", segment=segment, sentence=number - 1))
        tokens += [
            replace(each, segment=each.segment + segment, sentence=number)
            for each in read(sentence)
        ]
    return tuple(replace(token, at=at) for at, token in enumerate(tokens))


def same(one: Token, two: Token) -> bool:
    """Whether two words say the same."""
    if "fact" in (one.kind, two.kind):
        return one.forms == two.forms
    if one.forms & two.forms or (one.stem and one.stem == two.stem):
        return True
    if one.is_person and two.is_person and not (one.proper or two.proper):
        return True
    if one.senses & two.senses:
        return not (one.proper and two.proper) or one.text == two.text
    return False


def counterparts(token: Token, others: Sequence[Token]) -> list[int]:
    """Places of the words that say what ``token`` says, or what its parts say."""
    found = [
        at
        for at, other in enumerate(others)
        if other.is_content
        and (same(token, other) or any(same(token, part) for part in other.parts))
    ]
    if found or not token.parts:
        return found
    by_part = [
        [at for at, other in enumerate(others) if other.is_content and same(part, other)]
        for part in token.parts
    ]
    return [at for part in by_part for at in part] if all(by_part) else []


def opposites(token: Token, others: Sequence[Token]) -> list[int]:
    """Places of the words that say the opposite of ``token``."""
    if token.kind != "word" or token.is_light:
        return []
    return [
        at
        for at, other in enumerate(others)
        if other.kind == "word" and opposed(token.forms, other.forms)
    ]


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
        elif token.is_light or token.is_person:
            continue
        elif token.text == "1" and any(t.text in ("a", "an", "per") for t in source):
            continue
        elif token.kind == "word" and token.part == "noun" and counterparts(token, rest):
            borrowed.append(token)
        else:
            found.missing.append(token)
    if len(found.missing) > MISSING_MAX or any(t.kind == "fact" for t in found.missing):
        return found
    _drop_strays(found)
    _cover(found)
    _turn_opposites(found)
    _leave_out(found)
    _forgive(found, rest)
    _settle(found)
    pronoun = any(t.text in PRONOUNS for t in source)
    if found.dropped or len(borrowed) > (BORROWED_FOR_PRONOUN if pronoun else BORROWED):
        found.missing += borrowed
    return found


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
            whole = any(same(token, part) for other in content for part in other.parts) or any(
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


def live(tokens: Sequence[Token], covered: set[int], at: int) -> bool:
    """Whether an operator stands in a part of the source that the claim repeats."""
    inside = [
        place
        for place, token in enumerate(tokens)
        if token.segment == tokens[at].segment and token.is_content and not token.is_light
    ]
    return not inside or any(place in covered for place in inside)


def _leave_out(found: Aligned) -> None:
    """Sort what the claim does not repeat into what may go and what may not."""
    tokens, covered = found.source, found.covered
    # A person, a light word and a number "one" go without saying.
    loose = {
        at
        for at, token in enumerate(tokens)
        if token.is_content
        and at not in covered
        and (token.is_light or (token.is_person and not token.proper) or token.text == "1")
    }
    held = {
        at
        for at, token in enumerate(tokens)
        if at in covered or (token.kind == "operator" and live(tokens, covered, at))
    }
    at = 0
    while at < len(tokens):
        if at in held:
            at += 1
            continue
        end = at
        while end < len(tokens) and end not in held and not (end > at and _stops(tokens[end - 1])):
            end += 1
        heavy = [
            place
            for place in range(at, end)
            if (tokens[place].is_content and place not in loose) or tokens[place].kind == "operator"
        ]
        if heavy:
            if _may_go(tokens, at, end, heavy):
                found.gone.update(range(at, end))
            else:
                found.dropped += [tokens[place] for place in heavy]
        at = end


def _stops(token: Token) -> bool:
    return token.kind == "mark" and token.text in (".", "!", "?")


def _may_go(tokens: Sequence[Token], start: int, end: int, heavy: Sequence[int]) -> bool:
    """Whether the part from ``start`` to before ``end`` explains or adds, and limits nothing.

    :param heavy: places in it that say something.
    """
    lead = tokens[start : heavy[0] + 1]
    first = tokens[heavy[0]]
    words = [token.text for token in lead]
    ends = end == len(tokens) or _stops(tokens[end - 1]) or tokens[end].kind == "mark"
    closes = ends or tokens[end - 1].kind == "mark"
    begins = start == 0 or _stops(tokens[start - 1])
    if closes and _explains(tokens, start, heavy[0], end, words):
        return True
    if "(" in words and any(token.text == ")" for token in tokens[start:end]):
        return True
    if ends and op.ELSE in first.operators:
        return True
    behind = [token.text for token in tokens[heavy[-1] + 1 : end]]
    if ";" in behind and PRONOUNS & set(behind[behind.index(";") :]):
        return True
    whole_sentence = begins and (end == len(tokens) or _stops(tokens[end - 1]))
    if whole_sentence:
        return False
    if ends and not begins:
        return _goes_on(tokens, heavy, lead)
    if begins:
        return _came_before(tokens, start, end, heavy)
    return _predicate_before(tokens, start, end, heavy)


def _explains(
    tokens: Sequence[Token], start: int, first: int, end: int, words: Sequence[str]
) -> bool:
    if any(op.WHY in token.operators for token in tokens[start : first + 1]):
        return True
    if "for" in words and any(token.text in ("reason", "reasons") for token in tokens[first:end]):
        return True
    if "," in words and ("which" in words or "who" in words):
        return True
    before = tokens[start - 1] if start else None
    # "to" and a verb tell the purpose; behind "have" or "be able" they are the thing itself.
    purpose = (
        "to" in words
        and words.index("to") == len(words) - 2
        and words[-1].split()[0] in lexicon().verbs
    )
    return purpose and not (before is not None and before.kind == "operator")


def _is_verb(token: Token) -> bool:
    return token.kind == "word" and token.text.split()[0] in lexicon().verbs


def _acts(tokens: Sequence[Token]) -> bool:
    """Whether there is something like a predicate in it."""
    verbs = lexicon().verbs
    return any(
        (token.kind == "word" and any(form.split()[0] in verbs for form in token.forms))
        or token.text in ("is", "are", "was", "were", "has", "have", "be")
        or (set(token.operators) & {op.CAN, op.MAY, op.MUST, op.SHOULD, op.WILL})
        for token in tokens
    )


def _goes_on(tokens: Sequence[Token], heavy: Sequence[int], lead: Sequence[Token]) -> bool:
    """A statement of its own behind "and" or a semicolon."""
    texts = [token.text for token in lead]
    if ";" in texts:
        return True
    if not ({"and", "then"} & set(texts)) or "or" in texts:
        return False
    first = tokens[heavy[0]]
    if first.kind == "fact" or (
        len(heavy) > 1 and tokens[heavy[1]].kind == "fact" and not _acts([first])
    ):
        # "Size 90 for denim and size 70 for silk."
        return not any(tokens[place].kind == "operator" for place in heavy)
    if first.kind == "operator":
        if set(first.operators) & {op.CAN, op.MUST, op.SHOULD, op.WILL, op.MAY}:
            return True
        if set(first.operators) & {op.NEG, op.ONLY, op.EXCEPT, op.COND}:
            return False
    return _acts(tokens[heavy[0] : heavy[0] + 1]) or (
        bool(_DETERMINERS & set(texts)) and _acts([tokens[place] for place in heavy[1:]])
    )


def _came_before(tokens: Sequence[Token], start: int, end: int, heavy: Sequence[int]) -> bool:
    """A statement of its own in front of "and", whose subject and conditions the rest does not
    share."""
    part = tokens[start:end]
    first = tokens[heavy[0]]
    tail = [token.text for token in tokens[heavy[-1] + 1 : end]]
    joint = next((text for text in tail if text in ("and", "but", ";", "then")), None)
    if joint is None or end >= len(tokens):
        return False
    if joint == ";":
        return True
    operators = {each for token in part for each in token.operators}
    if operators & {op.COND, op.UNTIL, op.BEFORE, op.AFTER, op.ONLY, op.EXCEPT, op.WHILE, op.EVEN}:
        return False
    if part[0].text in _PLACING:
        return False
    behind = tail[tail.index(joint) + 1 :]
    own_subject = bool(_DETERMINERS & set(behind))
    if own_subject:
        return _acts(tokens[end:])
    commands = _is_verb(first) and not any(
        t.text in _DETERMINERS for t in part[: part.index(first)]
    )
    return commands and _is_verb(tokens[end]) and op.NEG not in operators


def _predicate_before(tokens: Sequence[Token], start: int, end: int, heavy: Sequence[int]) -> bool:
    """The first of two things said of one subject: "costs £4 and" in "it costs £4 and can be
    changed"."""
    tail = [token.text for token in tokens[heavy[-1] + 1 : end]]
    if "and" not in tail or not start or not tokens[start - 1].is_content:
        return False
    following = next((t for t in tokens[end - len(tail) :] if t.text not in ("and", ",")), None)
    if following is None or not _acts([following]):
        return False
    part = tokens[start:end]
    operators = {each for token in part for each in token.operators}
    return _acts(tokens[start : heavy[0] + 1]) and not operators & {op.COND, op.ONLY, op.EXCEPT}


def _settle(found: Aligned) -> None:
    """What the claim says has to stand in parts that were not left out, and every sentence of the
    source has to give something."""
    told = found.covered - found.gone
    for at, places in found.matches.items():
        if not set(places) & told and not found.claim[at].is_light:
            found.missing.append(found.claim[at])
    start = 0
    for at, token in enumerate(found.source):
        if _stops(token) or at == len(found.source) - 1:
            if not any(place in told for place in range(start, at + 1)):
                found.dropped.append(token)
            start = at + 1


def _forgive(found: Aligned, rest: Sequence[Token]) -> None:
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

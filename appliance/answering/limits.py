"""What an aligned sentence may still get wrong: negations, conditions, permissions, and which number
belongs to what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

from appliance.answering import operators as op
from appliance.answering.alignment import Aligned, live
from appliance.answering.lexicon import lexicon
from appliance.answering.reading import Token

_ON_NUMBERS: Final = frozenset({op.WITHIN, op.BY, op.LEAST, op.MORE, op.LESS, op.ABOUT})
_ON_CLAUSES: Final = frozenset({op.COND, op.BEFORE, op.AFTER, op.UNTIL, op.EXCEPT, op.WHILE})
_FREE: Final = frozenset({op.WHY, op.EXACT, op.WILL, op.ELSE})
_MAY_COME: Final = _FREE | {op.COND, op.CAN, op.WHILE}
"""Operators that make a sentence say no more than its source does."""
_MAY_GO: Final = _FREE | {op.ALL, op.CERTAIN, op.SEVERAL, op.ALWAYS}
_TELLING: Final = frozenset(
    {op.MUST, op.SHOULD, op.ALWAYS, op.USUALLY, op.SOMETIMES, op.OFTEN, op.RARELY}
)
"""Operators that belong to one clause."""
_STATED: Final = ("is ", "are ", "be ", "forbid", "prohibit", "banned")
NEAR: Final = 2
"""Words within which a negation belongs to a permission."""
FAR: Final = 4
"""Words within which "before" belongs to a number."""
_DUTIES: Final = frozenset({op.MUST, op.SHOULD})
_MODAL: Final = frozenset({op.CAN, op.MAY, op.MUST, op.SHOULD})
_AUXILIARIES: Final = frozenset("is are was were has have be been had does do".split())
_GETTING: Final = frozenset("get receive obtain have give send pay hear answer reply".split())
_COUNTED: Final = frozenset("each every any".split())


class Objection(NamedTuple):
    """What is wrong, of which kind."""

    kind: Literal["turned", "moved", "path", "operator", "mixed", "actor", "duty"]
    what: str


def objections(aligned: Aligned) -> list[Objection]:
    """All that the sentence says otherwise than its source."""
    found: list[Objection | None] = [
        _objection("turned", _turned(aligned)),
        _objection("moved", _moved_numbers(aligned)),
        _objection("path", _changed_path(aligned)),
        _objection("mixed", _mixed_choice(aligned)),
        _objection("mixed", _crossed(aligned)),
        _objection("mixed", _said_again(aligned)),
        _objection("moved", _turned_range(aligned)),
        _objection("actor", _other_actor(aligned)),
        _objection("actor", _other_owner(aligned)),
        *_changed_operators(aligned),
    ]
    return [each for each in found if each is not None]


def _objection(kind: Any, what: str | None) -> Objection | None:
    return None if what is None else Objection(kind, what)


def _used(aligned: Aligned) -> list[int]:
    return [at for at in range(len(aligned.source)) if at not in aligned.gone]


def _negations(tokens: Sequence[Token], places: Iterable[int]) -> list[int]:
    return [at for at in places if op.NEG in tokens[at].operators]


def _turned(aligned: Aligned) -> str | None:
    """Negations: as many on both sides, an opposite word counting as one, and on the same words."""
    claim, source = aligned.claim, aligned.source
    said = _negations(claim, range(len(claim)))
    told = _negations(source, _used(aligned))
    if (len(said) + len(aligned.opposites) - len(told)) % 2:
        return "negation"
    if aligned.opposites or len(said) != len(told):
        return None
    for at in said:
        answers = {place for word in _negated(claim, at) for place in aligned.matches.get(word, ())}
        if answers and not any(answers & _negated(source, place) for place in told):
            return "negation of something else"
    return None


def _segment(tokens: Sequence[Token], at: int) -> set[int]:
    """Places of the words of meaning in the same clause; of the one before where it has none."""
    for segment in (tokens[at].segment, tokens[at].segment - 1):
        found = {i for i, t in enumerate(tokens) if t.segment == segment and t.is_content}
        if found:
            return found
    return set()


def _negated(tokens: Sequence[Token], at: int) -> set[int]:
    """Places of the words under a negation: its clause and what "or" adds; "otherwise" and "nothing"
    reach back to the clause before."""
    found = _segment(tokens, at)
    for place in range(at + 1, len(tokens)):
        if tokens[place].kind == "mark":
            break
        if tokens[place].text == "or":
            found |= _segment(tokens, place)
    if tokens[at].text.startswith(_STATED) or (at and tokens[at - 1].text in _AUXILIARIES):
        # "A, B or C is forbidden."
        start = next((i for i in range(at, 0, -1) if tokens[i - 1].operators), 0)
        found |= {i for i in range(start, at) if tokens[i].is_content}
    if op.ELSE in tokens[at].operators or tokens[at].text in ("nothing", "none"):
        before = [i for i in range(at) if tokens[i].is_content and i not in found]
        found |= {i for i in before if tokens[i].segment == tokens[before[-1]].segment}
    return found


def _answers(aligned: Aligned, at: int) -> set[int]:
    """Places of the source that answer to the clause around a place of the claim."""
    return {
        place for word in _segment(aligned.claim, at) for place in aligned.matches.get(word, ())
    }


def _changed_operators(aligned: Aligned) -> list[Objection]:
    wrong: list[Objection] = []
    come: set[str] = set()
    claim, source = aligned.claim, aligned.source
    told = [
        (each, at)
        for at in _used(aligned)
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
        alike = sorted(
            (pair for pair in told if _alike(aligned, each, at, *pair)), key=lambda p: p[0] != each
        )
        fitting = next((p for p in alike if _same_scope(aligned, each, at, p[1])), None)
        if fitting is not None:
            told.remove(fitting)
        elif alike and each not in _MAY_COME:
            wrong.append(Objection("operator", f"{token.text} belongs to something else"))
        elif not _may_come(aligned, each, at):
            kind: Any = "duty" if each in _DUTIES and not duties else "operator"
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
            inside = _following(claim, at)
            outside = {i for i, t in enumerate(claim) if t.is_content} - inside
            first = {p for i in inside for p in aligned.matches.get(i, ())}
            second = {p for i in outside for p in aligned.matches.get(i, ())}
            for kind, place in list(told):
                there = _following(source, place)
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
        one, two = _argument(aligned.claim, said), _argument(aligned.source, told)
        return one is None or two is None or two in aligned.matches.get(one, (two,))
    if operator in _ON_CLAUSES:
        words = _following(aligned.claim, said)
        answers = {place for word in words for place in aligned.matches.get(word, ())}
        return not answers or bool(answers & _following(aligned.source, told))
    return True


def _argument(tokens: Sequence[Token], at: int) -> int | None:
    """The next word of meaning; of "or more", the one before."""
    if tokens[at].text.startswith(("or ", "and ")):
        return next((i for i in range(at - 1, -1, -1) if tokens[i].kind == "fact"), None)
    return next((i for i in range(at + 1, len(tokens)) if tokens[i].is_content), None)


def _following(tokens: Sequence[Token], at: int) -> set[int]:
    """Places of the words of meaning between an operator and the end of its clause."""
    found: set[int] = set()
    for place in range(at + 1, len(tokens)):
        token = tokens[place]
        if token.kind == "mark" and token.text != ">" and found:
            break
        if set(token.operators) & _ON_CLAUSES and found:
            break
        if token.is_content:
            found.add(place)
    return found


def _commands(tokens: Sequence[Token]) -> bool:
    """Whether a clause of it is an imperative."""
    verbs = lexicon().verbs
    fresh = True
    for at, token in enumerate(tokens):
        if fresh and token.kind in ("word", "operator"):
            following = tokens[at + 1] if at + 1 < len(tokens) else None
            governed = following is not None and (
                (following.kind == "operator" and op.NEG not in following.operators)
                or following.text in _AUXILIARIES
            )
            if token.kind == "word" and token.text.split()[0] in verbs and not governed:
                return True
            fresh = op.NEG in token.operators
        elif token.kind == "filler" and token.text not in ("please", "then", "and", "do", "also"):
            fresh = False
        if token.kind == "mark" or token.text in ("and", "or", "then"):
            fresh = True
    return False


def _passive(tokens: Sequence[Token]) -> bool:
    """Whether it tells what is done, without a word of what may or must be."""
    modal = {op.CAN, op.MAY, op.MUST, op.SHOULD, op.WILL, op.USUALLY, op.SOMETIMES}
    return not any(modal & set(token.operators) for token in tokens) and any(
        one.text in ("is", "are") and two.text.endswith(("ed", "en", "id", "nt", "ld"))
        for one, two in pairwise(tokens)
    )


def _addresses(tokens: Sequence[Token]) -> bool:
    return any(token.text in ("you", "your") for token in tokens)


def _may_come(aligned: Aligned, operator: str, at: int) -> bool:
    """Whether an operator of the claim may be missing in the source."""
    claim, source = aligned.claim, aligned.source
    if operator in _MAY_COME:
        return True
    if operator == op.MUST and claim[at].text.startswith(("need", "require")):
        following = claim[at + 1] if at + 1 < len(claim) else None
        if following is not None and following.kind == "fact":
            return True
    if operator in (op.MUST, op.SHOULD):
        return _commands(source) or (operator == op.MUST and _passive(source))
    if operator in (op.WITHIN, op.AFTER):
        # "In 5 days" for "within 5 days", "after delivery" for "of delivery".
        word = _argument(claim, at)
        near = {source[p - 1].text for p in aligned.matches.get(word or 0, ()) if p}
        near |= {source[p - 2].text for p in aligned.matches.get(word or 0, ()) if p > 1}
        return bool(near & ({"in"} if operator == op.WITHIN else {"of", "from"}))
    if operator == op.ALL:
        following = claim[at + 1] if at + 1 < len(claim) else None
        return (
            claim[at].text == "any"
            or claim[at].text in _COUNTED
            and (following is not None and (following.kind == "fact" or following.is_person))
        )
    return False


def _may_leave(aligned: Aligned, operator: str, at: int) -> bool:
    """Whether an operator of the source may be missing in the claim."""
    claim, source = aligned.claim, aligned.source
    if operator in _MAY_GO:
        return True
    if operator == op.CAN:
        return _commands(claim) or (_addresses(claim) and source[at].text == "possible")
    if operator in (op.MUST, op.SHOULD):
        return _commands(claim)
    if operator in (op.COND, op.WHILE):
        # "Block a lost card" for "if a card is lost, block it".
        words = {p for p in _following(source, at) if not source[p].is_light}
        return bool(words) and words <= aligned.covered
    if operator == op.WITHIN:
        word = _argument(source, at)
        places = [place for place, found in aligned.matches.items() if word in found]
        return any(place and claim[place - 1].text == "in" for place in places)
    if operator == op.AFTER:
        word = _argument(source, at)
        places = [place for place, found in aligned.matches.items() if word in found]
        near = {claim[p - 1].text for p in places if p} | {
            claim[p - 2].text for p in places if p > 1
        }
        return bool(near & {"of", "from"})
    return False


def _moved_numbers(aligned: Aligned) -> str | None:
    """Each number has to stand by the words it stands by in the source."""
    claim, source = aligned.claim, aligned.source
    numbers = [at for at, token in enumerate(source) if token.kind == "fact"]
    for at, token in enumerate(claim):
        if token.kind != "fact":
            continue
        places = aligned.matches.get(at, [])
        unit = _unit(claim, at)
        answers = aligned.matches.get(unit, []) if unit is not None else []
        if unit is not None and answers:
            # The unit is near one of them, or named for all.
            places = [p for p in places if any(abs(p - a) <= 3 for a in answers)]
            if not places:
                return f"{token.text} {claim[unit].text}"
        beside = {t.text for t in claim if t.segment == token.segment and t.kind == "fact"}
        rivals = [p for p in numbers if source[p].text not in beside]
        if not places or not rivals:
            continue
        around = _answers(aligned, at) - set(places) - set(answers)
        own = max(len(around & _segment(source, p)) for p in places)
        other = max(len(around & _segment(source, p)) for p in rivals)
        if other > own:
            return f"{token.text} belongs to something else"
    return None


def _unit(tokens: Sequence[Token], at: int) -> int | None:
    """The word behind a number, unless the number is an amount, an address or a code."""
    if not tokens[at].text.replace(".", "").replace(":", "").isdigit() or at + 1 >= len(tokens):
        return None
    return at + 1 if tokens[at + 1].kind == "word" else None


def _changed_path(aligned: Aligned) -> str | None:
    """Menu paths: the same joints between the same words."""
    used = [aligned.source[at] for at in _used(aligned)]
    if _joints(aligned.claim) != _joints(used):
        return "menu path"
    return None


def _joints(tokens: Sequence[Token]) -> set[tuple[str, str]]:
    return {
        (tokens[at - 1].text, tokens[at + 1].text)
        for at, token in enumerate(tokens)
        if token.text == ">" and 0 < at < len(tokens) - 1
    }


def _mixed_choice(aligned: Aligned) -> str | None:
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


def _crossed(aligned: Aligned) -> str | None:
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
    for at, token in enumerate(claim):
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


def _other_actor(aligned: Aligned) -> str | None:
    """Whether "we" do what in the source "you" do. To receive is to be sent, so that is let be."""
    claim, source = aligned.claim, aligned.source
    said, told = _actors(claim), _actors(source)
    for segment, actor in said.items():
        words = [at for at, t in enumerate(claim) if t.segment == segment and t.is_content]
        if not words or any(_gets(claim[at]) for at in words):
            continue
        theirs = {told.get(source[place].segment) for place in aligned.matches.get(words[0], ())}
        got = any(_gets(t) for t in source if told.get(t.segment) not in (None, actor))
        if theirs and actor not in theirs and None not in theirs and not got:
            return f"{actor} do it"
    return None


def _gets(token: Token) -> bool:
    return token.is_content and bool(
        token.forms & _GETTING or any(part.forms & _GETTING for part in token.parts)
    )


def _other_owner(aligned: Aligned) -> str | None:
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


def _said_again(aligned: Aligned) -> str | None:
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


def _turned_range(aligned: Aligned) -> str | None:
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

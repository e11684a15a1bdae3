"""What of a source a sentence may leave out: what explains, and statements of their own. Not what
limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appliance.answering import operators as op
from appliance.answering.aligned import DETERMINERS, PRONOUNS, Aligned, live, stops
from appliance.answering.lexicon import lexicon, listed
from appliance.answering.tokens import Token

PRONOUN_NEAR: Final = 3
"""Words within which a clause begins with the pronoun for what stands before it."""
_HOW_OFTEN: Final = frozenset({op.USUALLY, op.ALWAYS, op.OFTEN, op.SOMETIMES, op.RARELY})
_PLACING: Final = listed("for in on at during with within outside from until under")


def leave_out(found: Aligned) -> None:
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
        while end < len(tokens) and end not in held and not (end > at and stops(tokens[end - 1])):
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


def _may_go(tokens: Sequence[Token], start: int, end: int, heavy: Sequence[int]) -> bool:
    """Whether the part from ``start`` to before ``end`` explains or adds, and limits nothing.

    :param heavy: places in it that say something.
    """
    lead = tokens[start : heavy[0] + 1]
    first = tokens[heavy[0]]
    words = [token.text for token in lead]
    ends = end == len(tokens) or stops(tokens[end - 1]) or tokens[end].kind == "mark"
    closes = ends or tokens[end - 1].kind == "mark"
    begins = start == 0 or stops(tokens[start - 1])
    if closes and _explains(tokens, start, heavy[0], end, words):
        return True
    if "(" in words and any(token.text == ")" for token in tokens[start:end]):
        return True
    if ends and op.ELSE in first.operators:
        return True
    behind = [token.text for token in tokens[heavy[-1] + 1 : end]]
    after = {token.text for token in tokens[end : end + PRONOUN_NEAR]}
    if ";" in behind and PRONOUNS & (after | set(behind[behind.index(";") :])):
        return True
    whole_sentence = begins and (end == len(tokens) or stops(tokens[end - 1]))
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
    # ", which ..." and ", after which ..."
    behind = [token.text for token in tokens[first + 1 : first + 2] if tokens[first].kind != "word"]
    if "," in words and {"which", "who"} & {*words, *behind}:
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
    # "And usually arrives": how often it does says nothing of where it stands.
    heavy = [place for place in heavy if not set(tokens[place].operators) & _HOW_OFTEN] or heavy
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
        bool(DETERMINERS & set(texts)) and _acts([tokens[place] for place in heavy[1:]])
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
    own_subject = bool(DETERMINERS & set(behind))
    if own_subject:
        return _acts(tokens[end:])
    commands = _is_verb(first) and not any(t.text in DETERMINERS for t in part[: part.index(first)])
    return commands and _is_verb(tokens[end]) and op.NEG not in operators


def _predicate_before(tokens: Sequence[Token], start: int, end: int, heavy: Sequence[int]) -> bool:
    """The first of two things said of one subject: "costs £4 and" in "it costs £4 and can be
    changed"."""
    tail = [token.text for token in tokens[heavy[-1] + 1 : end]]
    if "and" not in tail or not start or not tokens[start - 1].is_content:
        return False
    after = next((t for t in tokens[end - len(tail) :] if t.text not in ("and", ",")), None)
    if after is None or not _acts([after]):
        return False
    part = tokens[start:end]
    operators = {each for token in part for each in token.operators}
    return _acts(tokens[start - 1 : heavy[0] + 1]) and not operators & {op.COND, op.ONLY, op.EXCEPT}

"""When two words say the same, or the opposite."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.answering.lexicon import opposed
from appliance.answering.tokens import Token


def same(one: Token, two: Token) -> bool:
    """Whether two words say the same."""
    if "fact" in (one.kind, two.kind):
        return one.kind == two.kind and bool(one.forms & two.forms)
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

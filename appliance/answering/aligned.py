"""What the judge knows of a sentence laid over its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from appliance.answering.lexicon import listed
from appliance.answering.reading import MEMO, read
from appliance.answering.tokens import Token

PRONOUNS: Final = listed("it they this these those them its their that he she")
DETERMINERS: Final = listed(
    "the a an your our you we they it this that these those my their its no he she i"
)


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
        if tokens and not stops(tokens[-1]):
            tokens.append(Token(".", "mark", segment=segment, sentence=number - 1))
        tokens += [
            replace(each, segment=each.segment + segment, sentence=number)
            for each in read(sentence)
        ]
    return tuple(replace(token, at=at) for at, token in enumerate(tokens))


def live(tokens: Sequence[Token], covered: set[int], at: int) -> bool:
    """Whether an operator stands in a part of the source that the claim repeats."""
    heavy = [t for t in tokens if t.is_content and not t.is_light]
    inside = [t.at for t in heavy if t.segment == tokens[at].segment]
    if not inside:
        closes = at + 1 == len(tokens) or tokens[at + 1].kind == "mark"
        before, after = [t.at for t in heavy if t.at < at], [t.at for t in heavy if t.at > at]
        inside = before[-1:] if closes or not after else after[:1]
    return not inside or any(place in covered for place in inside)


def stops(token: Token) -> bool:
    """Whether it ends a sentence."""
    return token.kind == "mark" and token.text in (".", "!", "?")

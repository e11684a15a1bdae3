"""What must not leave the machine, or not be kept, found in a text and replaced by its kind in
brackets.

Cards, account numbers, e-mail addresses, telephone numbers, keys and passwords. Digits and letters
are read alike in every script and width, and invisible characters between them hide nothing.
Where a rule has to guess, a secret kept weighs more than a word lost; a date, a price, a version or
an error code is no secret.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from appliance.domain import secret_forms as forms

KINDS: Final = ("password", "key", "iban", "email", "card", "phone")
"""Every kind; of two that claim the very same stretch the earlier names it."""

SECRETS: Final = ("password", "key", "card")
"""Kinds that nobody needs to help a customer: not even the desk keeps them. One-time codes that are
said to be one count as passwords. An address, a telephone number and the account that a refund goes
to have to be readable to who answers."""

_PLACEHOLDER: Final = re.compile(rf"\[(?:{'|'.join(KINDS)})\]")


@dataclass(frozen=True, slots=True)
class Redacted:
    """A text without its secrets, and how many of each kind it held."""

    text: str
    counts: Mapping[str, int]


def redact(text: str, kinds: Collection[str] = KINDS) -> Redacted:
    """Replace every secret of these kinds by ``[kind]``. Redacting the result again changes
    nothing."""
    counts: Counter[str] = Counter()
    while True:
        # What is left beside a secret may itself be one that could not be told apart before, as a
        # telephone number that a card followed.
        redacted = _once(text, kinds, counts)
        if redacted == text:
            return Redacted(text, dict(counts))
        text = redacted


def _once(text: str, kinds: Collection[str], counts: Counter[str]) -> str:
    """One pass over what stands between the placeholders."""
    parts: list[str] = []
    start = 0
    for placeholder in _PLACEHOLDER.finditer(text):
        before = text[start : placeholder.start()]
        parts += [_replaced(before, kinds, counts), placeholder.group()]
        start = placeholder.end()
    return "".join([*parts, _replaced(text[start:], kinds, counts)])


def _replaced(text: str, kinds: Collection[str], counts: Counter[str]) -> str:
    plain, origins = _plain(text)
    parts: list[str] = []
    start = 0
    for kind, first, last in _merged(plain, kinds):
        parts += [text[start : origins[first]], f"[{kind}]"]
        # Up to the next character that is read: marks on the last one go with it.
        start = max(origins[last - 1] + 1, origins[last] if last < len(plain) else len(text))
        counts[kind] += 1
    return "".join([*parts, text[start:]])


def _merged(plain: str, kinds: Collection[str]) -> Iterator[tuple[str, int, int]]:
    """Secrets as (kind, first, end), in order and apart from each other. Where several overlap the
    longest names the whole."""
    spans = sorted(
        (first, last, kind) for kind in kinds for first, last in forms.FINDERS[kind](plain)
    )
    group: list[tuple[int, int, str]] = []
    for span in [*spans, (len(plain) + 1, 0, "")]:
        end = max((last for _, last, _ in group), default=0)
        if group and span[0] >= end:
            # KINDS is in order of rank, and of equals max() returns the first.
            ranked = sorted(group, key=lambda found: KINDS.index(found[2]))
            _, _, kind = max(ranked, key=lambda found: found[1] - found[0])
            yield kind, group[0][0], end
            group = []
        group.append(span)


def _plain(text: str) -> tuple[str, list[int]]:
    """The text as rules read it, and for each of its characters where it stands in the text."""
    if text.isascii():
        return text, list(range(len(text)))
    characters: list[str] = []
    origins: list[int] = []
    for at, character in enumerate(text):
        kind = unicodedata.category(character)
        if kind in ("Cf", "Mn", "Me"):
            continue
        if kind == "Nd":
            alike = str(unicodedata.decimal(character))
        elif kind == "Pd" or character == "\u2212":
            alike = "-"
        elif kind == "Zs":
            alike = " "
        else:
            alike = unicodedata.normalize("NFKC", character)
        characters += alike
        origins += [at] * len(alike)
    return "".join(characters), origins

"""Sentences of an article that wait for an administrator before anybody reads them.

Which they are says ``suspicion``; here a text is taken apart, and put together again without them.
Pure functions: what is held, released or removed is storage's to remember.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from appliance.domain.passage import Article
from appliance.domain.policy import ArticlePart, QuarantineReason
from appliance.domain.suspicion import FINDERS
from appliance.domain.text import clean, is_hidden, sentences

Span = tuple[int, int]

_HARMLESS: Final = frozenset("\u00ad\ufeff\u200c\u200d\u200e\u200f\ufe0e\ufe0f")
"""Soft hyphens, byte order marks, joiners and direction marks of scripts that need them, and what
chooses between the two looks of a sign: word processors leave them in honest texts."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence to hold; ``digest`` knows it again in a later import of the article."""

    part: ArticlePart
    sentence: str
    reason: QuarantineReason
    digest: str


def digest_of(sentence: str) -> str:
    """SHA-256, in hexadecimal, of a sentence, whatever its white space."""
    return hashlib.sha256(" ".join(sentence.split()).encode()).hexdigest()


def screen(article: Article, hidden: Collection[str] = ()) -> tuple[Finding, ...]:
    """What to hold of an article, in order, each sentence once.

    :param hidden: sentences of it that held invisible characters before it was cleaned.
    """
    parts: tuple[tuple[ArticlePart, str], ...] = (
        ("question", article.question),
        ("answer", article.answer),
    )
    found = {
        finding.digest: finding
        for part, text in reversed(parts)
        for finding in reversed([*_findings(part, text, hidden)])
    }
    return tuple(reversed(found.values()))


def without(text: str, digests: Collection[str]) -> str:
    """The text without the sentences of these digests; unchanged, to the byte, if it has none."""
    kept, at = [], 0
    for first, last in _spans(text):
        if digest_of(text[first:last]) in digests:
            kept.append(text[at:first])
            at = last
    return text if at == 0 else _joined([*kept, text[at:]])


def hidden_sentences(raw: str) -> tuple[str, ...]:
    """Sentences of the cleaned text in which, before, there were characters that nobody sees."""
    # Cleaning composes letters and moves everything, so that places are counted in what survives
    # it: letters without their marks and without white space.
    cleaned = clean(raw)
    places, count = [], 0
    for character in raw:
        if is_hidden(character):
            if character not in _HARMLESS:
                places.append(count)
        elif unicodedata.category(character) != "Cc":
            count += _bare(character)
    if not places:
        return ()
    found, end = [], 0
    for first, last in _spans(cleaned):
        begin, end = end, end + _bare(cleaned[first:last])
        if any(begin < place <= end or place == begin == 0 for place in places):
            found.append(cleaned[first:last])
    return tuple(found)


def _bare(text: str) -> int:
    """How many characters a text has, decomposed, without marks and white space."""
    decomposed = unicodedata.normalize("NFD", text)
    return sum(not c.isspace() and not unicodedata.combining(c) for c in decomposed)


def _findings(part: ArticlePart, text: str, hidden: Collection[str]) -> Iterator[Finding]:
    spans = _spans(text)
    reasons: dict[Span, QuarantineReason] = {}
    for reason, find in FINDERS.items():
        for first, last in find(text):
            for span in spans:
                if span[0] < last and first < span[1]:
                    reasons.setdefault(span, reason)
    for span in spans:
        sentence = text[span[0] : span[1]]
        why = reasons.get(span, "invisible" if sentence in hidden else None)
        if why is not None:
            yield Finding(part, sentence, why, digest_of(sentence))


def _spans(text: str) -> list[Span]:
    """Where each sentence stands."""
    spans, at = [], 0
    for sentence in sentences(text):
        first = text.index(sentence, at)
        at = first + len(sentence)
        spans.append((first, at))
    return spans


def _joined(pieces: list[str]) -> str:
    """The pieces around what was cut out, with the wider of the two gaps between them."""
    whole = ""
    for piece in pieces:
        left, right = whole.rstrip(), piece.lstrip()
        gaps = (whole[len(left) :], piece[: len(piece) - len(right)])
        whole = left + (max(gaps, key=lambda gap: (gap.count("\n"), len(gap))) + right)
    return whole.strip()

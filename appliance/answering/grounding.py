"""The judge: is a sentence supported by a passage? Code decides, not the model that wrote it.

A sentence passes when one sentence of a passage, or two neighbours, hold nearly all its content
words, every number, code, address and menu step in it, every name, and as much or as little
negation. It errs towards "no": a cut sentence costs style, an invented one costs trust.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from appliance.domain.passage import Article, Passage
from appliance.domain.policy import SAID_MIN, SUPPORT_MIN
from appliance.domain.text import (
    content_stems,
    facts,
    menu_steps,
    negations,
    sentences,
    words,
)

SHORTEST = 3
"""Content words below which a sentence says too little to be judged."""

_NAME = re.compile(r"(?<![.!?:]\s)(?<!^)\b[A-Z][\w-]+")


def supporting_passage(sentence: str, passages: Sequence[Passage]) -> Passage | None:
    """The first passage that supports a sentence, or None."""
    return next((p for p in passages if is_supported(sentence, p.article.answer)), None)


def is_supported(sentence: str, source: str) -> bool:
    """Whether ``source`` says what ``sentence`` says."""
    if sentence.rstrip().endswith("?"):
        return False  # a question put to the customer is no knowledge
    wanted = content_stems(sentence)
    if len(wanted) < SHORTEST:
        return False
    return any(_holds(window, sentence, wanted) for window in _windows(sentences(source)))


def unsaid(article: Article, said: Iterable[str]) -> list[str]:
    """Sentences of the article, in order, that the sentences already said do not cover."""
    spoken = content_stems(" ".join(said))
    spoken_facts = facts(" ".join(said))
    return [
        sentence
        for sentence in sentences(article.answer)
        if not (
            facts(sentence) <= spoken_facts
            and _share(content_stems(sentence), spoken) >= SAID_MIN.value
        )
    ]


def _windows(parts: Sequence[str]) -> Iterable[str]:
    yield from parts
    yield from (" ".join(pair) for pair in pairwise(parts))


def _holds(source: str, sentence: str, wanted: set[str]) -> bool:
    return (
        _share(wanted, content_stems(source)) >= SUPPORT_MIN.value
        and facts(sentence) <= facts(source)
        and menu_steps(sentence) <= menu_steps(source)
        and {name.lower() for name in _NAME.findall(sentence)} <= _names(source)
        and (negations(sentence) > 0) == (negations(_nearest(source, wanted)) > 0)
    )


def _names(source: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[\w-]+", source)} | set(words(source))


def _nearest(source: str, wanted: set[str]) -> str:
    """Of a window's sentences the one that shares most words: its negation is the one that
    counts."""
    return max(sentences(source), key=lambda part: len(wanted & content_stems(part)), default="")


def _share(wanted: set[str], held: set[str]) -> float:
    return len(wanted & held) / len(wanted) if wanted else 1.0

"""The judge: is a sentence supported by a passage? Code decides, not the model that wrote it.

A sentence passes when it says what one sentence of a passage says: the same words of meaning in the
same order, none added, none left out, the same numbers, amounts, codes and menu paths. Leaving a
word out is no smaller change than adding one: "14 days after the first failed payment" without
"failed" is a promise nobody made. It errs towards "no": a cut sentence costs style, an invented one
costs trust.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from appliance.domain.passage import Article, Passage
from appliance.domain.text import facts, menu_steps, sentences, stem, words

FILLERS: Final = frozenset(
    {
        "a",
        "an",
        "the",
        "and",
        "of",
        "that",
        "which",
        "this",
        "these",
        "those",
        "it",
        "its",
        "our",
        "your",
    }
    | {"you", "we", "is", "are", "was", "were", "be", "been", "being", "please", "also"}
)
"""Words that a rewording may add or drop. Not among them: what negates, limits, permits, obliges,
or says when."""

SHORTEST: Final = 3
"""Words of meaning below which a sentence says too little to be judged."""


def supporting_passage(sentence: str, passages: Sequence[Passage]) -> Passage | None:
    """The first passage that supports a sentence, or None."""
    return next((p for p in passages if is_supported(sentence, p.article.answer)), None)


def is_supported(sentence: str, source: str) -> bool:
    """Whether ``source`` says what ``sentence`` says."""
    gist = _gist(sentence)
    if len(gist) < SHORTEST or sentence.rstrip().endswith("?"):
        return False
    return any(
        gist == _gist(part)
        and facts(sentence) == facts(part)
        and menu_steps(sentence) == menu_steps(part)
        for part in sentences(source)
    )


def is_hopeless(begun: str, passages: Sequence[Passage]) -> bool:
    """Whether a sentence that begins like this cannot become one that is supported.

    Its last word may still grow, so it is not looked at. To stop here instead of at the full stop
    saves most of what a model writes in vain.
    """
    finished = begun.rstrip().rpartition(" ")[0] if not begun[-1:].isspace() else begun
    gist = _gist(finished)
    return bool(gist) and not any(
        gist == _gist(part)[: len(gist)]
        for passage in passages
        for part in sentences(passage.article.answer)
    )


def unsaid(article: Article, said: Iterable[str]) -> list[str]:
    """Sentences of the article, in order, that none of the sentences already said repeats whole."""
    gists = {_gist(sentence) for sentence in said}
    return [part for part in sentences(article.answer) if _gist(part) not in gists]


def _gist(text: str) -> tuple[str, ...]:
    return tuple(stem(word) for word in words(text) if word not in FILLERS)

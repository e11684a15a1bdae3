"""Whether a text repeats a sentence word for word, small words aside."""

from __future__ import annotations

from typing import Final

from appliance.answering.lexicon import listed
from appliance.domain.text import facts, menu_steps, sentences, stem, words

FILLERS: Final = listed(
    "a an the and of that which this these those it its is are was were be been being please also"
)
"""Words that a rewording may add or drop. Not among them: what negates, limits, permits, obliges,
says when, or who does it."""

SHORTEST: Final = 3
"""Words of meaning below which a sentence says too little to be judged."""


def repeated(sentence: str, source: str) -> str | None:
    """The sentence of the source with the same words of meaning in the same order, the same
    numbers, amounts, codes and menu paths; or None."""
    words_of_meaning = gist(sentence)
    if len(words_of_meaning) < SHORTEST:
        return None
    return next(
        (
            part
            for part in sentences(source)
            if words_of_meaning == gist(part)
            and facts(sentence) == facts(part)
            and menu_steps(sentence) == menu_steps(part)
        ),
        None,
    )


def gist(text: str) -> tuple[str, ...]:
    """The stems of the words of meaning, in order."""
    return tuple(stem(word) for word in words(text) if word not in FILLERS)

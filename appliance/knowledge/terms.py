"""Which articles have a query's own words: what an embedding blurs, as error codes, part numbers
and names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from appliance.domain.text import stem, words

_COMMON: Final = frozenset(
    words(
        "a about all also am an and any are as at be been but by can could dear did do does for "
        "from get got had has have he hello her hi his how i if i'm in is it its just me my no not "
        "of on or our out please she so some than thank thanks that the them then there they this "
        "to up us was we were what when where which who why will with would you your"
    )
)
"""Words that every message has, whatever it is about."""


class Terms:
    """The words of a knowledge base, and in which of its texts each of them stands."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._size = len(texts)
        owners: dict[str, list[int]] = {}
        for at, text in enumerate(texts):
            for term in terms(text):
                owners.setdefault(term, []).append(at)
        self._owners = {term: np.array(found) for term, found in owners.items()}

    def coverage(self, text: str) -> npt.NDArray[np.float32]:
        """The share of a text's words that each text of the base has, rare ones counting more:
        shape (texts,), 0 to 1."""
        shares = np.zeros(self._size, dtype=np.float32)
        total = 0.0
        for term in terms(text):
            found = self._owners.get(term)
            rarity = math.log((self._size + 1) / ((0 if found is None else len(found)) + 0.5))
            total += rarity
            if found is not None:
                shares[found] += rarity
        return shares / total if total > 0 else shares


def terms(text: str) -> set[str]:
    """The stems of a text's words that say what it is about."""
    return {stem(word) for word in words(text) if word not in _COMMON and len(word) > 1}

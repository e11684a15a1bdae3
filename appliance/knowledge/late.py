"""Late interaction: each token of a query meets the nearest token of an article, rare ones counting
more. One vector for a whole text blurs just those words that tell two articles apart. It costs too
much to be asked of every article, so that it judges candidates only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from appliance.knowledge.tokens import Tokens, unit

COMMON = 0.1
"""What a token counts that every article has; an absent or rare one counts a few."""

_BLAS = ThreadpoolController()
"""Products this small are not worth a second thread: beside three busy processes the threads'
waiting for each other made 0.7 ms a search 780 at the 95th percentile, one thread 13."""

Spans = tuple[tuple[int, int], ...]


def record(dimensions: int) -> np.dtype[np.void]:
    """How a token is kept: its id, its direction, and what makes the direction's length 1."""
    return np.dtype([("id", "<i4"), ("scale", "<f4"), ("direction", "i1", (dimensions,))])


@dataclass(frozen=True, slots=True)
class TokenStore:
    """The tokens of texts, one text after the other, and which of them are whose."""

    records: npt.NDArray[np.void]
    """Shape (tokens,); mapped from a file where it was saved, so that only what is looked at takes
    memory."""
    lengths: tuple[int, ...]
    """Tokens of each text."""
    spans: Spans
    """Where each article's tokens begin and end."""
    frequencies: dict[int, int]
    """How many articles have a token, by its id."""

    def similarity(self, query: Tokens, owners: Sequence[int]) -> npt.NDArray[np.float32]:
        """How near a query comes to each of the ``owners``: the weighted mean of its tokens'
        greatest cosines, shape (owners,), -1 to 1."""
        found = np.zeros(len(owners), dtype=np.float32)
        if not len(query.ids):
            return found
        weights = np.array([self._weight(int(token)) for token in query.ids], dtype=np.float32)
        asked = unit(query.directions) * (weights / weights.sum())[:, None]
        with _BLAS.limit(limits=1, user_api="blas"):
            for at, owner in enumerate(owners):
                first, last = self.spans[owner]
                if first < last:
                    own = self.records[first:last]
                    products = asked @ own["direction"].astype(np.float32).T
                    found[at] = (products * own["scale"]).max(axis=1).sum()
        return found

    def of_texts(self) -> Iterable[npt.NDArray[np.void]]:
        """The tokens of each text in order."""
        first = 0
        for length in self.lengths:
            yield self.records[first : first + length]
            first += length

    def _weight(self, token: int) -> float:
        having = self.frequencies.get(token, 0)
        return COMMON + max(0.0, math.log((len(self.spans) + 1) / (having + 0.5)))


def pack(tokens: Tokens) -> npt.NDArray[np.void]:
    """A text's tokens as they are kept."""
    count, dimensions = tokens.directions.shape
    packed = np.zeros(count, dtype=record(dimensions))
    lengths = np.linalg.norm(tokens.directions.astype(np.float32), axis=1)
    packed["id"] = tokens.ids
    packed["scale"] = 1 / np.where(lengths > 0, lengths, 1.0)
    packed["direction"] = tokens.directions
    return packed


def gather(
    records: npt.NDArray[np.void], lengths: Sequence[int], parts: Sequence[int]
) -> TokenStore:
    """The store of articles with so many texts each (``parts``), whose tokens lie in order.

    :raises ValueError: there are more or fewer tokens or texts than that.
    """
    bounds = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).tolist()
    ends = np.concatenate([[0], np.cumsum(parts, dtype=np.int64)]).tolist()
    if bounds[-1] != len(records) or ends[-1] != len(lengths):
        raise ValueError("The tokens are not those of the texts.")
    spans = tuple((bounds[first], bounds[last]) for first, last in pairwise(ends))
    frequencies: dict[int, int] = {}
    for first, last in spans:
        for token in np.unique(records["id"][first:last]).tolist():
            frequencies[token] = frequencies.get(token, 0) + 1
    return TokenStore(records, tuple(lengths), spans, frequencies)

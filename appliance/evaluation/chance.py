"""What chance explains of a difference between two runs over the same queries.

If the runs were equally good, it would be chance which of them a query's result came from. So the
results of queries that differ are swapped, every way or at random, and it is counted how often that
makes a difference as large as the one seen. For a figure that is right or wrong query by query this
is McNemar's exact test; means of parts, and shares whose queries differ between the runs, are
judged the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

ALL_SWAPS: Final = 12
"""Queries that differ, up to which every way of swapping them is tried: 4,096."""
SWAPS: Final = 10_000
"""Random ways that are tried otherwise, with a seed, so that one comparison is always the same."""
AT_ONCE: Final = 500
SEED: Final = 20_260_101

Floats = npt.NDArray[np.float64]


def chance_of_gain(old: Floats, new: Floats, sign: int) -> float:
    """How likely so large a gain is without a reason, 0 to 1.

    :param old: for each query the sum and the count of the values it adds to the figure: an array
        of shape (queries, 2); ``new`` the same for the other run.
    :param sign: 1 where the figure rose, -1 where it fell.
    """
    seen = sign * float(ratio(new.sum(axis=0)) - ratio(old.sum(axis=0)))
    differ = (old != new).any(axis=1)
    kept = old[~differ].sum(axis=0)
    old, new = old[differ], new[differ]
    hits = tried = 0
    for swapped in _swaps(len(old)):
        first = kept + swapped @ new + (1 - swapped) @ old
        second = kept + swapped @ old + (1 - swapped) @ new
        gains = sign * (ratio(second) - ratio(first))
        # What a swap leaves without any value proves nothing: it counts for chance.
        hits += int((~(gains < seen - 1e-9)).sum())
        tried += len(swapped)
    exact = len(old) <= ALL_SWAPS
    return hits / tried if exact else (hits + 1) / (tried + 1)


def _swaps(length: int) -> Iterator[Floats]:
    """Rows of zeros and ones: which queries are swapped."""
    if length <= ALL_SWAPS:
        numbers = np.arange(2**length)[:, None]
        yield ((numbers >> np.arange(length)) & 1).astype(np.float64)
        return
    dice = np.random.default_rng(SEED)
    for _ in range(SWAPS // AT_ONCE):
        yield dice.integers(0, 2, size=(AT_ONCE, length)).astype(np.float64)


def ratio(sums: Floats) -> Any:
    """Sum over count, of one pair or of each row; unknown where the count is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)

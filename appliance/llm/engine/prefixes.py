"""Prompts that were evaluated before, with their KV cache, so that what they share is not again.

A copy holds a sequence's cells and nothing else, so the room they take together can be bounded to
the byte. Tokens are compared, not their hashes: there is no wrong hit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Saved = ctypes.Array[ctypes.c_uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Tokens and a copy of the cache they left."""

    tokens: NDArray[np.int32]
    cache: Saved


class PrefixStore:
    """The latest evaluated sequences, least recently useful ones dropped first.

    :param limit: bytes all copies may take together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: list[Kept] = []  # the most recently useful last
        self.size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def best(self, tokens: NDArray[np.int32]) -> tuple[int, Kept | None]:
        """The copy that shares the longest beginning with ``tokens``, and how many tokens."""
        longest, found = 0, None
        for kept in self._kept:
            shared = shared_prefix(kept.tokens, tokens)
            if shared > longest:
                longest, found = shared, kept
        if found is not None:
            self._kept.remove(found)
            self._kept.append(found)
        return longest, found

    def covers(self, tokens: NDArray[np.int32]) -> bool:
        """Whether a copy begins with all of ``tokens``: another one would add nothing."""
        return any(shared_prefix(kept.tokens, tokens) == len(tokens) for kept in self._kept)

    def put(self, tokens: NDArray[np.int32], cache: Saved) -> None:
        """Keep a copy, instead of those it goes on from; too large a one is not kept."""
        if len(cache) > self.limit:
            return
        for kept in list(self._kept):
            if shared_prefix(kept.tokens, tokens) == len(kept.tokens):
                self._drop(kept)
        self._kept.append(Kept(tokens, cache))
        self.size += len(cache)
        while self.size > self.limit:
            self._drop(self._kept[0])

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self.size = 0

    def _drop(self, kept: Kept) -> None:
        self._kept.remove(kept)
        self.size -= len(kept.cache)


def shared_prefix(left: NDArray[np.int32], right: NDArray[np.int32]) -> int:
    """How many tokens both begin with."""
    length = min(len(left), len(right))
    differ = np.flatnonzero(left[:length] != right[:length])
    return int(differ[0]) if len(differ) else length


def as_tokens(tokens: Sequence[int]) -> NDArray[np.int32]:
    """Tokens as an array of shape (tokens,)."""
    return np.asarray(tokens, dtype=np.int32)

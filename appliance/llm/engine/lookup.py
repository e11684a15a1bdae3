"""Drafts without a second model: answers copy from the prompt, so what stood there may come again.

When the latest tokens occurred before, those that followed them there are proposed, and one batch
tells how many of them the model would have written itself. The answer is the same as without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

NGRAM: Final = 3
"""Tokens that must have occurred before."""
DRAFT: Final = 7
"""Tokens proposed at a time: with the one that is due they make a batch of eight, which matrix
kernels take in one pass."""
WORTH: Final = 3
"""Tokens that must come true for the batch to have paid."""
FIRST_PAUSE: Final = 4


class Lookup:
    """Proposes what comes next in one text; pauses, longer each time, when it is often wrong."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self._pause = FIRST_PAUSE
        self._not_before = 0
        self.extend(prompt)

    def extend(self, tokens: Sequence[int]) -> None:
        """Go on with the text."""
        for token in tokens:
            # The gram before this token is entered only now, so that it never finds itself.
            if len(self._tokens) >= NGRAM:
                self._after[tuple(self._tokens[-NGRAM:])] = len(self._tokens)
            self._tokens.append(token)

    def draft(self, limit: int) -> list[int]:
        """At most ``limit`` tokens that may follow; often none."""
        if limit < 1 or len(self._tokens) < self._not_before:
            return []
        at = self._after.get(tuple(self._tokens[-NGRAM:]))
        return [] if at is None else self._tokens[at : at + min(limit, DRAFT)]

    def learn(self, came_true: int) -> None:
        """Hear how many tokens of the latest draft came true."""
        if came_true >= WORTH:
            self._pause = FIRST_PAUSE
            return
        self._not_before = len(self._tokens) + self._pause
        self._pause *= 2

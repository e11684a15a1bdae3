"""Corrected messages by heart: who writes what a person has labelled before is read like that.

The heads generalise; this makes the one message that somebody took the trouble to correct come out
right from then on, whatever articles vote for. It speaks up for all but equal messages only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from appliance.domain.policy import RECALL_MIN, RECALL_MOOD_MIN, RECALL_WRITTEN_ALIKE
from appliance.understanding.features import MOOD_SIZE, SURFACE_SIZE, join, surface
from appliance.understanding.heads import Floats, Head


def remember(vectors: Floats, texts: Sequence[str], labels: Sequence[str]) -> Head:
    """The messages as rows of a head, embedding and mood: its labels are theirs."""
    return Head(tuple(labels), join(vectors, list(texts)), np.zeros(len(labels), dtype=np.float32))


def recalled(remembered: Head | None, text: str, vector: Floats, *, mood: bool) -> str | None:
    """The label of the message nearest to this one, if they are all but equal.

    :param mood: labels are sentiments: the two have to be written alike as well.
    """
    if remembered is None:
        return None
    rows = remembered.weights
    cosines = rows[:, :-MOOD_SIZE] @ vector
    if mood:
        apart = np.abs(rows[:, -SURFACE_SIZE:] - surface(text)).sum(axis=1)
        cosines = np.where(apart <= RECALL_WRITTEN_ALIKE, cosines, -1.0)
    nearest = len(cosines) - 1 - int(np.argmax(cosines[::-1]))  # of equals the latest
    least = RECALL_MOOD_MIN if mood else RECALL_MIN
    return remembered.labels[nearest] if cosines[nearest] >= least.value else None

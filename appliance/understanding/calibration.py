"""Measures how much the model in charge may say in categories and moods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from appliance.domain.policy import CALIBRATION_FOLDS
from appliance.domain.ports import Encoder
from appliance.errors import ModelUnavailable
from appliance.llm.interface import ChatModel
from appliance.understanding import heads, opinion
from appliance.understanding.heads import Floats
from appliance.understanding.opinion import LABELS, Asked, Opinion
from appliance.understanding.reader import STRENGTHS, features, read_examples

Indices = npt.NDArray[np.int64]


async def calibrate(
    model: ChatModel,
    encoder: Encoder,
    examples: Path,
    *,
    most: int,
    asked: Callable[[], None] = lambda: None,
) -> dict[Asked, Opinion]:
    """Ask the model for the labels of shipped examples, and weigh what it says.

    :param most: examples a kind, as many of each label as there are.
    :param asked: called with each example asked.
    :raises ModelUnavailable: it is down, or tells no probabilities.
    """
    rows = read_examples(examples)
    return {kind: await _weighed(model, encoder, rows, kind, most, asked) for kind in LABELS}


async def _weighed(
    model: ChatModel,
    encoder: Encoder,
    rows: Sequence[Mapping[str, Any]],
    kind: Asked,
    most: int,
    asked: Callable[[], None],
) -> Opinion:
    labels = LABELS[kind]
    known = [row for row in rows if row.get(kind) is not None]
    texts = [row["text"] for row in known]
    right = np.array([labels.index(row[kind]) for row in known])
    chosen = _of_each(right, len(labels), most)
    vectors = features(kind, np.asarray(await encoder.encode(texts)), texts)
    unseen = _unseen(kind, vectors, right, chosen)
    said = np.zeros((len(chosen), len(labels)), dtype=np.float32)
    for at, row in enumerate(chosen):
        told = await opinion.scores(model, kind, texts[row])
        if told is None:
            raise ModelUnavailable("This backend does not tell how probable each label is.")
        said[at] = [told[label] for label in labels]
        asked()
    return opinion.fitted(unseen, said, right[chosen].tolist(), labels)


def _of_each(right: Indices, labels: int, most: int) -> list[int]:
    """Rows spread over the examples, ``most`` in all, as many of each label."""
    share = max(1, most // labels)
    found: list[int] = []
    for label in range(labels):
        rows = np.flatnonzero(right == label)
        spread = np.linspace(0, len(rows) - 1, min(share, len(rows))).round().astype(int)
        found += rows[spread].tolist()
    return sorted(found)


def _unseen(kind: Asked, vectors: Floats, right: Indices, chosen: Sequence[int]) -> Floats:
    """Log probabilities for the chosen rows, by heads that saw nothing of them."""
    labels = LABELS[kind]
    found = np.zeros((len(chosen), len(labels)), dtype=np.float32)
    fold = np.zeros(len(right), dtype=int)
    fold[list(chosen)] = np.arange(len(chosen)) % CALIBRATION_FOLDS + 1
    for number in range(1, CALIBRATION_FOLDS + 1):
        seen = fold != number
        head = heads.train(
            vectors[seen], [labels[at] for at in right[seen]], strength=STRENGTHS[kind]
        )
        for at, row in enumerate(chosen):
            if fold[row] == number:
                told = head.probabilities(vectors[row])
                found[at] = np.log([max(1e-9, told.get(label, 0.0)) for label in labels])
    return found

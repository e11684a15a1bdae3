"""A head: multinomial logistic regression over embeddings, small enough to train in a second at
start.

Saved as plain arrays, never as pickles, under the fingerprint of what it was trained on.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Head:
    """``weights`` has shape (labels, features), ``bias`` shape (labels,)."""

    labels: tuple[str, ...]
    weights: Floats
    bias: Floats

    def probabilities(self, features: Floats) -> dict[str, float]:
        """Label to probability for one feature vector of shape (features,)."""
        logits = self.weights @ features + self.bias
        odds = np.exp(logits - logits.max())
        return dict(zip(self.labels, (odds / odds.sum()).tolist(), strict=True))


def train(
    features: Floats,
    labels: Sequence[str],
    *,
    strength: float,
    weights: Sequence[float] | None = None,
) -> Head:
    """Fit a head. Deterministic.

    :param strength: scikit-learn's C: larger trusts the examples more.
    :param weights: how many times each example counts; once by default.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    model = LogisticRegression(C=strength, max_iter=2000, class_weight="balanced")
    # Matrices this small are not worth a second thread: on two busy cores the threads' waiting for
    # each other made 0.14 s of processor time 5.8.
    with threadpool_limits(1, "blas"):
        model.fit(features, list(labels), sample_weight=weights)
    coefficients, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(model.classes_) == 2:
        # For two labels scikit-learn keeps one row, that of the second against the first.
        coefficients = np.vstack([0 * coefficients, coefficients])
        bias = np.concatenate([0 * bias, bias])
    return Head(
        tuple(str(label) for label in model.classes_),
        coefficients.astype(np.float32),
        bias.astype(np.float32),
    )


def digest(heads: dict[str, Head]) -> str:
    """SHA-256, in hex, of what the heads compute with: equal digests read every message alike."""
    hashed = hashlib.sha256()
    for name, head in sorted(heads.items()):
        hashed.update(json.dumps([name, head.labels, head.weights.shape]).encode())
        hashed.update(head.weights.tobytes())
        hashed.update(head.bias.tobytes())
    return hashed.hexdigest()


def save(heads: dict[str, Head], fingerprint: str, path: Path) -> None:
    """Write heads atomically."""
    arrays: dict[str, npt.NDArray[Any]] = {"fingerprint": np.array(fingerprint)}
    for name, head in heads.items():
        arrays[f"{name}.labels"] = np.array(head.labels)
        arrays[f"{name}.weights"] = head.weights
        arrays[f"{name}.bias"] = head.bias
    write_arrays(arrays, path)


def write_arrays(arrays: dict[str, npt.NDArray[Any]], path: Path) -> None:
    """Write arrays atomically."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The process id keeps two writers apart: a command and the server may both train.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path, fingerprint: str) -> dict[str, Head] | None:
    """The heads saved under this fingerprint, or None where they are missing, damaged or of other
    examples."""
    try:
        # Opened here, because numpy leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if str(arrays["fingerprint"]) != fingerprint:
                return None
            names = {key.split(".")[0] for key in arrays.files if "." in key}
            return {
                name: Head(
                    tuple(str(label) for label in arrays[f"{name}.labels"]),
                    arrays[f"{name}.weights"],
                    arrays[f"{name}.bias"],
                )
                for name in names
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None

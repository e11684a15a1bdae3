"""Vectors of the texts that heads are trained on, kept so that only new texts are encoded.

Texts stand there as hashes. What is no longer trained on is dropped with the next saving.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from appliance.understanding import heads
from appliance.understanding.heads import Floats

Encode = Callable[[Sequence[str]], Floats]
Vectors = Mapping[str, Floats]
"""Vectors of shape (dimensions,) by the hash of their text."""


class VectorFile:
    """The vectors of one encoder in one file.

    :param encoder: fingerprint of the embedding model; vectors of another one are not used.
    """

    def __init__(self, path: Path, encoder: str) -> None:
        self._path = path
        self._encoder = encoder

    def load(self) -> dict[str, Floats]:
        """What is kept; nothing where the file is missing, damaged or of another encoder."""
        try:
            with self._path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                if str(arrays["fingerprint"]) != self._encoder:
                    return {}
                return dict(zip(arrays["keys"].tolist(), arrays["vectors"], strict=True))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return {}

    def save(self, vectors: Vectors) -> None:
        """Keep these and no others.

        :raises OSError: the file cannot be written.
        """
        heads.write_arrays(
            {
                "fingerprint": np.array(self._encoder),
                "keys": np.array(list(vectors)),
                "vectors": np.stack(list(vectors.values())),
            },
            self._path,
        )

    def keeping(self, encode: Encode) -> Encode:
        """An encoder that looks here first, and keeps what it was asked."""

        def encode_and_keep(texts: Sequence[str]) -> Floats:
            known = self.load()
            new = [text for text in dict.fromkeys(texts) if vector_key(text) not in known]
            if new:
                known |= zip(map(vector_key, new), encode(new), strict=True)
            found = {vector_key(text): known[vector_key(text)] for text in texts}
            with suppress(OSError):  # a full disk costs the next one the time, not this one
                self.save(found)
            return np.stack([found[vector_key(text)] for text in texts])

        return encode_and_keep


def vector_key(text: str) -> str:
    """What a text's vector is kept under."""
    return hashlib.sha256(text.encode()).hexdigest()


def lookup(vectors: Vectors, dimensions: int) -> Encode:
    """An encoder that knows these texts and no others."""

    def encode(texts: Sequence[str]) -> Floats:
        if not texts:
            return np.zeros((0, dimensions), dtype=np.float32)
        return np.stack([vectors[vector_key(text)] for text in texts])

    return encode

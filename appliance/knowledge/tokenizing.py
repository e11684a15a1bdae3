"""Texts to token ids, the way a sentence-transformers folder says: its own tokenizer.json, its
greatest length, its lower-casing. Needs the library ``tokenizers`` and nothing of torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer, normalizers

from appliance.errors import WeightsError

Ids = npt.NDArray[np.int64]
"""Shape (texts, tokens)."""

COLUMNS = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}
"""What models may want to be given, and what the tokenizer calls it."""


class TextTokenizer:
    """Cuts texts at the model's greatest length; pads only among the texts of one batch.

    :raises WeightsError: the folder has no tokenizer.json, or does not say where to cut.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise WeightsError(f"{folder} holds no tokenizer.json.")
        self._tokenizer = Tokenizer.from_file(str(file))
        named = _settings(folder / "tokenizer_config.json")
        # The name carries the architecture: sentence_bert_config.json, sentence_roberta_config.json
        found = sorted(folder.glob("sentence_*_config.json"))
        sentence = _settings(found[0]) if found else {}
        if sentence.get("do_lower_case"):
            own = self._tokenizer.normalizer
            steps = [normalizers.Lowercase(), *([own] if own is not None else [])]
            self._tokenizer.normalizer = normalizers.Sequence(steps)
        # The file may pad everything to a fixed length, which costs as much as that many words.
        own_padding = self._tokenizer.padding or {}
        self._tokenizer.no_padding()
        self.longest = sentence.get("max_seq_length") or _longest(named, folder)
        self._tokenizer.enable_truncation(
            self.longest, direction=named.get("truncation_side", "right")
        )
        token = named.get("pad_token") or own_padding.get("pad_token") or "[PAD]"
        self._pad_token = str(token["content"] if isinstance(token, dict) else token)
        self._pad_id = self._tokenizer.token_to_id(self._pad_token)
        if self._pad_id is None:
            raise WeightsError(f"The tokenizer of {folder} does not know {self._pad_token}.")
        self._side = named.get("padding_side", "right")

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """The tokens of each text, unpadded."""
        return self._tokenizer.encode_batch(list(texts))

    def batch(self, encodings: Sequence[Encoding], columns: Sequence[str]) -> dict[str, Ids]:
        """The texts as one batch, each padded to the longest of them.

        :param columns: keys of ``COLUMNS`` that the model wants.
        """
        width = max(len(encoding) for encoding in encodings)
        for encoding in encodings:
            encoding.pad(
                width, direction=self._side, pad_id=self._pad_id, pad_token=self._pad_token
            )
        return {
            column: np.array([getattr(e, COLUMNS[column]) for e in encodings], dtype=np.int64)
            for column in columns
        }


def _longest(named: dict[str, Any], folder: Path) -> int:
    limits = (
        named.get("model_max_length"),
        _settings(folder / "config.json").get("max_position_embeddings"),
    )
    known = [int(limit) for limit in limits if limit is not None and limit > 0]
    if not known:
        raise WeightsError(f"{folder} does not say how long a text may be.")
    return min(known)


def _settings(file: Path) -> dict[str, Any]:
    """A configuration file's content; nothing where there is no such file."""
    if not file.is_file():
        return {}
    read: dict[str, Any] = json.loads(file.read_bytes())
    return read

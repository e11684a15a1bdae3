"""One type of weights on trial: how fast it is here, and what it still knows."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from appliance.errors import ModelError
from appliance.llm.engine.llamacpp import Context, Model
from appliance.llm.engine.prefixes import as_tokens, shared_prefix
from appliance.llm.engine.work import Threads
from appliance.llm.engine.yardstick import (
    LABEL_TASK,
    LABELLED,
    LABELS,
    READING_TASK,
    READINGS,
    SHOTS,
)
from appliance.llm.interface import ChatMessage
from appliance.llm.templates import Template

PROMPT_TOKENS = 150
GENERATED_TOKENS = 60
"""A customer's query as the desk sends it: what is new in its prompt, and a short answer."""
REPETITIONS = 4
_LENGTH = 512
"""Tokens; every prompt of the yardstick fits, in one batch."""


class Verdict(msgspec.Struct, frozen=True):
    """What a trial found.

    Times are the shortest seen, in seconds; ``likelihood`` is the mean natural-log probability of a
    token of the reference answers; ``right`` of ``asked`` labels were the most probable one.
    """

    prompt_seconds: float
    generate_seconds: float
    likelihood: float
    right: int
    asked: int

    @property
    def seconds(self) -> float:
        """What is compared: a prompt and its answer."""
        return self.prompt_seconds + self.generate_seconds


def measure(path: Path, template: Template, *, threads: int) -> Verdict:
    """Put a file on trial; takes some seconds and all of ``threads``.

    :raises WeightsError: it cannot be loaded.
    :raises ModelError: llama.cpp failed on it, or computes no numbers with it.
    """
    model = Model(path)
    try:
        context = Context(model, length=_LENGTH, batch=_LENGTH, threads=Threads(threads, threads))
        try:
            trial = _Trial(model, context, template)
            prompt_seconds, generate_seconds = trial.speed()
            likelihood = trial.likelihood()
            right = trial.labels_right()
        finally:
            context.close()
    finally:
        model.close()
    if not math.isfinite(likelihood):
        raise ModelError(f"{path.name} gives no probabilities.")
    return Verdict(prompt_seconds, generate_seconds, likelihood, right, len(LABELLED))


class _Trial:
    def __init__(self, model: Model, context: Context, template: Template) -> None:
        self._model = model
        self._context = context
        self._template = template
        self._prompt: list[int] = []

    def speed(self) -> tuple[float, float]:
        """Shortest seconds for the prompt and for the generated tokens."""
        text = " ".join(reading.passage for reading in READINGS)
        tokens = self._encode([ChatMessage("user", text)])[: PROMPT_TOKENS + GENERATED_TOKENS]
        # Brings the weights into memory, and does not count.
        self._context.decode(tokens[:PROMPT_TOKENS], 0)
        runs = [self._timed(tokens) for _ in range(REPETITIONS)]
        # The quickest: whatever else the machine did can only have made it slower.
        return min(r[0] for r in runs), min(r[1] for r in runs)

    def likelihood(self) -> float:
        """Mean log probability of the reference answers' tokens, each after the right ones."""
        total = 0.0
        count = 0
        for passage, question, answer in READINGS:
            first = self._read(
                [
                    ChatMessage("system", READING_TASK),
                    ChatMessage("user", f"Passage: {passage}\n\nQuestion: {question}"),
                ]
            )
            words = self._model.tokenize(answer, control=False)
            total += self._score(first, words)
            count += len(words)
        return total / count

    def labels_right(self) -> int:
        """How often the right label is the most probable one, without each label's own pull.

        A small model likes one label whatever the message is; a label's score is therefore compared
        with its mean over all messages.
        """
        shots = [ChatMessage("system", LABEL_TASK)]
        for text, label in SHOTS:
            shots += [ChatMessage("user", text), ChatMessage("assistant", label)]
        labels = [self._model.tokenize(label, control=False) for label in LABELS]
        scores = np.empty((len(LABELLED), len(LABELS)))
        for row, (text, _) in enumerate(LABELLED):
            first = self._read([*shots, ChatMessage("user", text)])
            scores[row] = [self._score(first, tokens) for tokens in labels]
        chosen = (scores - scores.mean(axis=0)).argmax(axis=1)
        right = [LABELS.index(label) for _, label in LABELLED]
        return int((chosen == right).sum())

    def _encode(self, messages: Sequence[ChatMessage]) -> list[int]:
        return [
            token
            for text, is_control in self._template.render(messages)
            for token in self._model.tokenize(text, control=is_control)
        ]

    def _timed(self, tokens: Sequence[int]) -> tuple[float, float]:
        self._context.forget(0)
        self._prompt = []
        started = time.perf_counter()
        self._context.decode(tokens[:PROMPT_TOKENS], 0)
        between = time.perf_counter()
        for at in range(PROMPT_TOKENS, PROMPT_TOKENS + GENERATED_TOKENS):
            self._context.decode(tokens[at : at + 1], at)
        return between - started, time.perf_counter() - between

    def _read(self, messages: Sequence[ChatMessage]) -> NDArray[np.float64]:
        """Log probabilities after a prompt; what it shares with the one before is kept."""
        prompt = self._encode(messages)
        shared = shared_prefix(as_tokens(self._prompt), as_tokens(prompt))
        keep = min(shared, len(prompt) - 2)
        self._context.forget(keep)
        self._context.decode(prompt[keep:], keep)
        self._prompt = prompt
        return _log_probabilities(self._context.logits())

    def _score(self, first: NDArray[np.float64], tokens: Sequence[int]) -> float:
        """Log probability of ``tokens`` after the prompt just read, which gave ``first``."""
        total = float(first[tokens[0]])
        if len(tokens) > 1:
            at = len(self._prompt)
            self._context.decode(tokens[:-1], at, every=True)
            for index, token in enumerate(tokens[1:]):
                total += float(_log_probabilities(self._context.logits(index))[token])
            self._context.forget(at)
        return total


def _log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    scores = logits.astype(np.float64)
    scores -= scores.max()
    scores -= np.log(np.exp(scores).sum())
    return scores

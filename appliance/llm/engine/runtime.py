"""A loaded model that turns one piece of work into text, and remembers the last prompt it read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from appliance.errors import WeightsError
from appliance.llm.engine.llamacpp import Context, Model, Sampler
from appliance.llm.engine.text import Assembler
from appliance.llm.engine.work import CancelFlag, Counts, Delta, Finished, FinishReason, Work
from appliance.llm.interface import ChatMessage
from appliance.llm.templates import Template

PREFILL_BATCH = 256
"""Prompt tokens evaluated at once: enough for full speed, few enough to look up in between."""
SERVED_CONTEXT = 8192
"""Most tokens of prompt and answer, whatever a model was trained for: the cache costs memory."""


class Runtime:
    """Owns a model and its context. Any thread may call :meth:`encode`, only one the rest.

    The prompt of the last request stays in the KV cache, and the part a new prompt shares with it
    is not evaluated again. Generated tokens are not reused: they were evaluated one by one, which
    gives other bits than a batch, and a greedy answer must not depend on what was asked before.

    :raises WeightsError: the file cannot be loaded, or has not the markers of the template.
    """

    def __init__(self, path: Path, template: Template, *, threads: int) -> None:
        self._template = template
        self._model = Model(path)
        try:
            self._check_markers()
            self.context = min(SERVED_CONTEXT, self._model.trained_context)
            self._context = Context(
                self._model, length=self.context, batch=PREFILL_BATCH, threads=threads
            )
        except WeightsError:
            self._model.close()
            raise
        self.file_type = self._model.file_type
        self._read: list[int] = []

    def encode(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """The tokens of a prompt; no message can contain a control token."""
        return tuple(
            token
            for text, is_control in self._template.render(messages)
            for token in self._model.tokenize(text, control=is_control)
        )

    def generate(self, work: Work, flag: CancelFlag) -> Iterator[Delta | Finished]:
        """Yield pieces of text and at last how it ended; nothing more once ``flag`` is set.

        :param work: its prompt and ``max_tokens`` together fit into ``context``.
        :raises ModelError: llama.cpp failed; the next request starts with an empty cache.
        """
        self._context.watch(flag)
        cached = self._reusable(work.prompt)
        if not self._prefill(work.prompt, cached, flag):
            return
        sampler = Sampler(work.sampling)
        try:
            yield from self._continue(work, cached, sampler, flag)
        finally:
            sampler.close()

    def close(self) -> None:
        """Give the memory back."""
        self._context.close()
        self._model.close()

    def _check_markers(self) -> None:
        for marker in self._template.markers:
            tokens = self._model.tokenize(marker, control=True)
            as_text = self._model.tokenize(marker, control=False)
            if len(tokens) != 1 or not self._model.is_control(tokens[0]) or tokens == as_text:
                raise WeightsError(
                    f"These weights have no control token {marker}: template {self._template.id} "
                    "is not theirs.",
                    hint="Add the file under the catalog name it belongs to.",
                )

    def _reusable(self, prompt: Sequence[int]) -> int:
        """How many tokens of the cache the prompt begins with.

        At least two are left to evaluate: one for the scores of the next token, and a second
        because a batch of one takes another path through the kernels and gives other bits.
        """
        return max(0, min(shared_prefix(self._read, prompt), len(prompt) - 2))

    def _prefill(self, prompt: Sequence[int], start: int, flag: CancelFlag) -> bool:
        """Evaluate the prompt from ``start`` on; False if the flag was set meanwhile."""
        self._context.forget(start)
        self._read = list(prompt[:start])
        while start < len(prompt):
            size = min(PREFILL_BATCH, len(prompt) - start)
            if len(prompt) - start - size == 1:
                size -= 1  # rather two in the last batch than one: see _reusable
            batch = prompt[start : start + size]
            if flag.is_set() or not self._context.decode(batch, start):
                return False
            self._read += batch
            start += size
        return True

    def _continue(
        self, work: Work, cached: int, sampler: Sampler, flag: CancelFlag
    ) -> Iterator[Delta | Finished]:
        text = Assembler(work.stop)
        reason: FinishReason = "length"
        generated = 0
        while generated < work.max_tokens:
            token = self._context.sample(sampler)
            generated += 1
            # Any control token ends the turn, not only the official end: what follows would be a
            # conversation the model invents with itself.
            if self._model.is_control(token):
                reason = "stop"
                break
            if piece := text.feed(self._model.piece(token)):
                yield Delta(piece, Counts(len(work.prompt), cached, generated))
            if text.stopped:
                reason = "stop"
                break
            if generated == work.max_tokens:
                break
            at = len(work.prompt) + generated - 1
            if flag.is_set() or not self._context.decode([token], at):
                return
        if piece := text.finish():
            yield Delta(piece)
        yield Finished(reason, len(work.prompt), cached, generated)


def shared_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(left), len(right)))

"""One answer being written: what is evaluated of it, what comes next, and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from appliance.llm.engine.constraints import Grammar
from appliance.llm.engine.llamacpp import Sampler
from appliance.llm.engine.lookup import Lookup
from appliance.llm.engine.prefixes import as_tokens
from appliance.llm.engine.text import Assembler
from appliance.llm.engine.work import Counts, Delta, Finished, FinishReason, Job


class Vocabulary(Protocol):
    """What a stream has to know of tokens."""

    def piece(self, token: int) -> bytes: ...

    def is_control(self, token: int) -> bool: ...


class Stream:
    """Belongs to the engine's thread.

    ``tokens`` are those in the KV cache, in order. While the prompt is not all among them the
    stream is reading; afterwards ``due`` is the token that was chosen and not yet evaluated.
    """

    def __init__(self, job: Job, vocabulary: Vocabulary, *, drafts: bool) -> None:
        self.job = job
        self.work = job.work
        self.prompt = as_tokens(job.work.prompt)
        self.tokens: list[int] = []
        self.cached = 0
        self.begun = False
        self.waited = 0
        self.generated = 0
        self.due = -1
        self.reason: FinishReason | None = None
        self._vocabulary = vocabulary
        self._text = Assembler(job.work.stop)
        constraint = job.work.constraint
        self.matcher = constraint.matcher() if isinstance(constraint, Grammar) else None
        sampling = job.work.sampling
        self.sampler = Sampler(sampling) if sampling.temperature > 0 else None
        self.lookup = (
            Lookup(job.work.prompt)
            if drafts and self.sampler is None and self.matcher is None
            else None
        )

    @property
    def unread(self) -> int:
        """Tokens of the prompt that are still to be evaluated."""
        return max(0, len(self.prompt) - len(self.tokens))

    @property
    def left(self) -> int:
        """Tokens that may still be generated."""
        return self.work.max_tokens - self.generated

    @property
    def counts(self) -> Counts:
        """Tokens so far."""
        return Counts(len(self.prompt), self.cached, self.generated)

    def take(self, tokens: Sequence[int]) -> None:
        """Go on with chosen tokens, the last of which becomes due; sets ``reason`` at the end."""
        said = ""
        for token in tokens:
            self.generated += 1
            self.due = token
            # Any control token ends the turn, not only the official end: what follows would be a
            # conversation the model invents with itself.
            if self._vocabulary.is_control(token):
                self.reason = "stop"
                break
            said += self._text.feed(self._vocabulary.piece(token))
            if self.matcher is not None:
                self.matcher.accept(token)
            if self._text.stopped or (self.matcher is not None and self.matcher.complete):
                self.reason = "stop"
                break
            if self.left == 0:
                self.reason = "length"
                break
        if self.reason is not None:
            said += self._text.finish()
        elif self.lookup is not None:
            self.lookup.extend(tokens)
        if said:
            self.job.emit(Delta(said, self.counts))

    def finish(self, scores: dict[str, float] | None = None) -> Finished:
        """How it ended."""
        assert self.reason is not None
        return Finished(self.reason, len(self.prompt), self.cached, self.generated, scores)

    def choose(self, logits_after: Callable[[tuple[int, ...]], object]) -> Finished:
        """End with one of the work's choices."""
        choices = self.work.constraint
        assert choices is not None
        assert not isinstance(choices, Grammar)
        scores = choices.scores(logits_after)  # type: ignore[arg-type]
        sampling = self.work.sampling
        text, self.generated = choices.pick(
            scores, temperature=sampling.temperature, seed=sampling.seed
        )
        self.reason = "stop"
        self.job.emit(Delta(text, self.counts))
        return self.finish(scores)

    def close(self) -> None:
        """Give the memory back."""
        if self.sampler is not None:
            self.sampler.close()
            self.sampler = None

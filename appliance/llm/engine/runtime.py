"""A loaded model that works on many requests at a time; knows nothing of queues or HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from appliance.errors import ModelError, WeightsError
from appliance.llm.engine.constraints import Choices, Compiler, ConstraintError, Grammar
from appliance.llm.engine.lane import PREFILL_BATCH, Lane
from appliance.llm.engine.llamacpp import Context, Model
from appliance.llm.engine.prefixes import PrefixStore
from appliance.llm.engine.speed import Speed
from appliance.llm.engine.stream import Stream
from appliance.llm.engine.work import Ended, Failed, Job, Threads, Work
from appliance.llm.interface import ChatMessage, Structured
from appliance.llm.templates import Template
from appliance.logs import get_logger

log = get_logger()

SERVED_CONTEXT: Final = 8192
"""Most tokens of prompt and answer, whatever a model was trained for: the cache costs memory."""
SHARED_CONTEXT: Final = 1024
"""Most tokens of requests that are answered side by side. The desk's own are shorter; a longer one
is answered alone, beside the others, in a context of its own."""
CACHE_BYTES_MAX: Final = 1 << 30
"""What the caches of answers written side by side may take: large models write fewer at a time."""
FEWEST_STREAMS: Final = 2


class Runtime:
    """Owns a model and its contexts. Any thread may call :meth:`encode` and :meth:`constraint`,
    only one the rest.

    :param streams: most answers written side by side.
    :param kept_bytes: what evaluated prompts kept for reuse may take.
    :raises WeightsError: the file cannot be loaded, or has not the markers of the template.
    """

    def __init__(
        self,
        path: Path,
        template: Template,
        *,
        threads: Threads,
        streams: int = 16,
        kept_bytes: int = 1 << 28,
        drafts: bool = False,
    ) -> None:
        self._template = template
        self._threads = threads
        self._drafts = drafts
        self.speed = Speed()
        self._store = PrefixStore(kept_bytes)
        self._long: Lane | None = None
        self._model = Model(path)
        try:
            self._check_markers()
            self.context = min(SERVED_CONTEXT, self._model.trained_context)
            shared = min(SHARED_CONTEXT, self.context)
            fitting = CACHE_BYTES_MAX // (shared * max(1, self._model.cache_bytes))
            self.streams = min(streams, max(FEWEST_STREAMS, fitting))
            self._shared = self._lane(shared, self.streams)
        except WeightsError:
            self._model.close()
            raise
        self.file_type = self._model.file_type
        self._compiler = Compiler(self._model, self._end())

    def encode(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """The tokens of a prompt; no message can contain a control token."""
        return tuple(
            token
            for text, is_control in self._template.render(messages)
            for token in self._model.tokenize(text, control=is_control)
        )

    def constraint(self, asked: Structured) -> Choices | Grammar:
        """What the engine follows for a request's constraint.

        :raises ConstraintError: it is wrong.
        """
        if asked.choice is not None:
            return self._compiler.choices(asked.choice)
        if asked.regex is not None:
            return self._compiler.regex(asked.regex)
        if asked.json is not None:
            return self._compiler.json(asked.json)
        if asked.grammar is not None:
            return self._compiler.grammar(asked.grammar)
        raise ConstraintError("There is no constraint.")

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        return any(lane.streams for lane in self._lanes)

    def has_room(self, work: Work) -> bool:
        """Whether this work could begin now."""
        if self._fits_shared(work):
            return self._shared.free > 0
        return self._long is None or self._long.free > 0

    def begin(self, job: Job) -> None:
        """Begin work there is room for; its ``prompt`` and ``max_tokens`` fit into ``context``.

        :raises ModelError: no memory for a long request.
        """
        lane = self._shared if self._fits_shared(job.work) else self._long_lane()
        lane.begin(Stream(job, self._model, drafts=lane.drafts))

    def step(self, now: float) -> list[Ended]:
        """Advance everything a little, and say what ended. ``now`` is on the monotonic clock."""
        return [ended for lane in self._lanes for ended in lane.step(now)]

    def unfinished(self) -> tuple[int, int]:
        """Tokens still to read and, at most, to write."""
        streams = [stream for lane in self._lanes for stream in lane.streams]
        return sum(s.unread for s in streams), sum(s.left for s in streams)

    def give_up(self, why: Failed) -> list[Ended]:
        """End everything under way, and start afresh."""
        dropped = [stream for lane in self._lanes for stream in lane.clear()]
        self._store.clear()
        return [Ended(stream.job, why) for stream in dropped]

    def close(self) -> None:
        """Give the memory back."""
        for lane in self._lanes:
            lane.close()
        self._model.close()

    @property
    def _lanes(self) -> tuple[Lane, ...]:
        return (self._shared,) if self._long is None else (self._shared, self._long)

    def _fits_shared(self, work: Work) -> bool:
        return len(work.prompt) + work.max_tokens <= self._shared.length

    def _long_lane(self) -> Lane:
        """Made when the first long request comes: most desks never see one."""
        if self._long is None:
            try:
                self._long = self._lane(self.context, 1)
            except WeightsError as error:
                raise ModelError(error.detail) from error
            log.info("long context made", length=self.context)
        return self._long

    def _lane(self, length: int, size: int) -> Lane:
        context = Context(
            self._model,
            length=length,
            batch=PREFILL_BATCH,
            threads=self._threads,
            sequences=size,
        )
        return Lane(context, size, self._store, self.speed, drafts=self._drafts)

    def _end(self) -> int:
        """The token that ends a turn: the marker the template closes messages with."""
        (end,) = self._model.tokenize(self._template.end, control=True)
        return end

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

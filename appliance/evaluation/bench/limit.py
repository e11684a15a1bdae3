"""The physical limit: a bare loop around ``llama_decode``, and the engine at its seam beside it.

Both are measured in turns, so that a machine that is busy with something else slows both down.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from appliance.llm.engine.lane import PREFILL_BATCH
from appliance.llm.engine.llamacpp import Context, Model
from appliance.llm.engine.runtime import Runtime
from appliance.llm.engine.scheduler import Loaded, Scheduler, Ticket
from appliance.llm.engine.work import Delta, Finished, Threads, Work
from appliance.llm.templates import Template

PROMPT: Final = 64
GENERATED: Final = 48
READ: Final = 768
"""Tokens of the prompt whose reading is timed."""
_LENGTH: Final = 1024


class Rates(msgspec.Struct, frozen=True):
    """Median tokens a second, and the median of the ratios of each pair of turns."""

    raw: float
    engine: float
    ratio: float


class RawLoop:
    """A model and as many sequences as there are streams; nothing else."""

    def __init__(self, path: Path, *, streams: int, threads: Threads) -> None:
        self._model = Model(path)
        self._streams = streams
        self._context = Context(
            self._model, length=_LENGTH, batch=PREFILL_BATCH, threads=threads, sequences=streams
        )

    def read(self, tokens: Sequence[int]) -> float:
        """Tokens a second of evaluating a prompt."""
        self._context.forget()
        started = time.perf_counter()
        for start in range(0, len(tokens), PREFILL_BATCH):
            self._context.decode(tokens[start : start + PREFILL_BATCH], start)
        return len(tokens) / (time.perf_counter() - started)

    def write(self, prompts: Sequence[Sequence[int]]) -> float:
        """Tokens a second of generating, all streams together, the most probable token each."""
        streams = range(len(prompts))
        due = []
        for at, prompt in enumerate(prompts):
            self._context.forget(sequence=at)
            self._context.decode(prompt, 0, sequence=at)
            due.append(int(self._context.logits().argmax()))
        started = time.perf_counter()
        for step in range(GENERATED):
            self._context.decode_each(due, [len(p) + step for p in prompts], streams)
            due = self._context.table(len(prompts)).argmax(axis=1).tolist()
        return GENERATED * len(prompts) / (time.perf_counter() - started)

    def close(self) -> None:
        """Give the memory back."""
        self._context.close()
        self._model.close()


class Seam:
    """The engine's scheduler without HTTP around it."""

    def __init__(self, path: Path, template: Template, *, streams: int, threads: Threads) -> None:
        self._runtime = Runtime(path, template, threads=threads, streams=streams, kept_bytes=0)
        self._scheduler = Scheduler(
            lambda _: Loaded(self._runtime, "bench"), model="bench", waiting=streams
        )

    async def start(self) -> None:
        """Wait until it takes work."""
        self._scheduler.start()
        while self._scheduler.status.state != "ok":
            await asyncio.sleep(0.01)

    async def read(self, tokens: Sequence[int]) -> float:
        """Tokens a second of evaluating a prompt, from the question to the first token."""
        started = time.perf_counter()
        await _to_the_end(self._scheduler.submit(Work(tuple(tokens), 1)))
        return len(tokens) / (time.perf_counter() - started)

    async def write(self, prompts: Sequence[Sequence[int]]) -> float:
        """Tokens a second while all streams are writing."""
        # Streams begin one after the other, as their prompts are read, and the first one ends
        # first: timed is what lies between.
        counts = [0] * len(prompts)
        marks: list[tuple[float, int]] = []

        async def follow(at: int, ticket: Ticket) -> None:
            while isinstance(event := await ticket.next(), Delta):
                if event.counts is not None:
                    counts[at] = event.counts.generated
                if all(counts):
                    marks.append((time.perf_counter(), sum(counts)))
            assert isinstance(event, Finished)
            if all(counts):
                raise _FirstIsDone

        tickets = [
            self._scheduler.submit(Work(tuple(p), GENERATED + 2 * len(prompts) + 8))
            for p in prompts
        ]
        try:
            await asyncio.gather(*(follow(at, t) for at, t in enumerate(tickets)))
        except _FirstIsDone:
            pass
        finally:
            for ticket in tickets:
                ticket.cancel()
        while self._scheduler.under_way != (0, 0):
            await asyncio.sleep(0.01)
        (began, first), (ended, last) = marks[0], marks[-1]
        return (last - first) / (ended - began)

    def stop(self) -> None:
        """End it and give the memory back."""
        self._scheduler.stop()
        self._scheduler.join(30)


class _FirstIsDone(Exception):
    pass


async def _to_the_end(ticket: Ticket) -> None:
    while isinstance(await ticket.next(), Delta):
        pass


def in_turns(pairs: Sequence[tuple[float, float]]) -> Rates:
    """Raw and engine, measured one after the other several times."""
    return Rates(
        raw=round(statistics.median(raw for raw, _ in pairs), 1),
        engine=round(statistics.median(engine for _, engine in pairs), 1),
        ratio=round(statistics.median(engine / raw for raw, engine in pairs), 3),
    )

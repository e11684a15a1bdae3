"""Who is answered when: a bounded queue, and one thread that owns the model.

Requests are answered one at a time, in the order they came. The server sees only ``ready``,
``submit`` and the ticket's events, so how many sequences run side by side is this module's business
alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import statistics
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from appliance.errors import ApplianceError, ModelError, NotReady, RateLimited
from appliance.llm.engine.work import CancelFlag, Delta, Event, Failed, Finished, Work
from appliance.llm.interface import ChatMessage
from appliance.logs import get_logger

log = get_logger()

RETRY_WHILE_LOADING = 2
"""Seconds; loading takes a few, the very first start some more."""
LONGEST_RETRY = 60
_REMEMBERED_DURATIONS = 8


class Generator(Protocol):
    """A loaded model; ``encode`` is safe in any thread, the others belong to the scheduler's."""

    context: int
    file_type: str

    def encode(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]: ...

    def generate(self, work: Work, flag: CancelFlag) -> Iterator[Delta | Finished]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory and the SHA-256 of its file."""

    generator: Generator
    sha256: str


@dataclass(frozen=True, slots=True)
class Status:
    """What ``/health`` says."""

    state: Literal["loading", "ok", "failed"]
    model: str
    sha256: str | None = None
    file_type: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Job:
    work: Work
    flag: CancelFlag
    emit: Callable[[Event], None]


class Ticket:
    """The asking side of a request. The last event is ``Finished`` or ``Failed``."""

    def __init__(self, flag: CancelFlag) -> None:
        self._flag = flag
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        # A stream whose client left before it began is dropped without any code of ours running.
        weakref.finalize(self, flag.set).atexit = False

    async def next(self) -> Event:
        """The next event."""
        return await self._events.get()

    def cancel(self) -> None:
        """Stop the work, running or waiting; without effect when it is done."""
        self._flag.set()

    def emitter(self) -> Callable[[Event], None]:
        """How the other thread hands events over; does not keep the ticket alive."""
        loop, put = self._loop, self._events.put_nowait

        def emit(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(put, event)

        return emit


class Scheduler:
    """One model, its thread and its queue.

    :param load: brings the model into memory, in the scheduler's thread; may report progress.
    :param model: the name under which it is served.
    :param waiting: how many requests may wait beside the one that is being answered.
    """

    def __init__(
        self, load: Callable[[Callable[[str], None]], Loaded], *, model: str, waiting: int
    ) -> None:
        self._load = load
        self._limit = waiting
        self._status = Status("loading", model, detail="starting")
        self._generator: Generator | None = None
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._running: _Job | None = None
        self._draining = self._stopping = False
        self._durations: deque[float] = deque(maxlen=_REMEMBERED_DURATIONS)
        # The logger's bound values live in the context, which a new thread would not have.
        self._thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._run,), name="model", daemon=True
        )

    @property
    def status(self) -> Status:
        """The state now; never waits for anything."""
        return self._status

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def ready(self) -> Generator:
        """The loaded model.

        :raises NotReady: it is loading, could not be loaded, or the engine is stopping.
        """
        if self._draining:
            raise NotReady("The engine is stopping.")
        if self._generator is None:
            raise NotReady(
                f"The model is not ready: {self._status.detail}.", retry_after=RETRY_WHILE_LOADING
            )
        return self._generator

    def submit(self, work: Work) -> Ticket:
        """Put work into the queue; call from the event loop.

        :raises NotReady: see :meth:`ready`.
        :raises RateLimited: the queue is full; ``retry_after`` is when it should be empty.
        """
        self.ready()
        with self._changed:
            for job in [job for job in self._waiting if job.flag.is_set()]:
                self._waiting.remove(job)
            busy = self._running is not None
            if len(self._waiting) >= self._limit + (0 if busy else 1):
                raise RateLimited("The engine's queue is full.", retry_after=self._patience())
            flag = CancelFlag()
            ticket = Ticket(flag)
            self._waiting.append(_Job(work, flag, ticket.emitter()))
            self._changed.notify()
        return ticket

    def drain(self) -> None:
        """Refuse new work from now on; what runs and waits is still answered."""
        self._draining = True

    def stop(self) -> None:
        """Give up on everything that runs or waits, tell whoever asked, and end the thread."""
        with self._changed:
            self._draining = self._stopping = True
            given_up = [*self._waiting, *([self._running] if self._running else [])]
            self._waiting.clear()
            self._changed.notify()
        for job in given_up:
            job.flag.set()
            job.emit(Failed("stopping", "The engine is stopping."))

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end; False if it is still inside the library after ``seconds``."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _patience(self) -> int:
        """Seconds until those who wait should be answered, by the median of the latest requests."""
        each = statistics.median(self._durations) if self._durations else 1.0
        return max(1, min(LONGEST_RETRY, math.ceil(each * (len(self._waiting) + 1))))

    def _report(self, detail: str) -> None:
        self._status = replace(self._status, detail=detail)

    def _run(self) -> None:
        started = time.monotonic()
        try:
            loaded = self._load(self._report)
        except Exception as error:
            # Whatever it was, /health must say it: a process without a model is otherwise silent.
            hint = f" {error.hint}" if isinstance(error, ApplianceError) else ""
            self._status = replace(self._status, state="failed", detail=f"{error}{hint}")
            log.exception("model not loaded")
            return
        self._generator = loaded.generator
        self._status = replace(
            self._status,
            state="ok",
            sha256=loaded.sha256,
            file_type=loaded.generator.file_type,
            detail="",
        )
        log.info("model loaded", seconds=round(time.monotonic() - started, 1), sha256=loaded.sha256)
        while (job := self._next()) is not None:
            self._answer(job, loaded.generator)
        loaded.generator.close()

    def _next(self) -> _Job | None:
        with self._changed:
            self._running = None
            while not self._waiting and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return None
            self._running = self._waiting.popleft()
            return self._running

    def _answer(self, job: _Job, generator: Generator) -> None:
        if job.flag.is_set():
            return
        started = time.monotonic()
        finished = False
        try:
            for event in generator.generate(job.work, job.flag):
                if isinstance(event, Finished):
                    finished = True
                    self._note(event, time.monotonic() - started)
                job.emit(event)
        except ModelError as error:
            job.emit(Failed("engine_error", error.detail))
            log.exception("completion failed")
        except Exception:
            # A defect: this request gets an error, the next one an answer.
            job.emit(Failed("engine_error", "The engine failed."))
            log.exception("completion failed")
        else:
            if not finished:
                seconds = round(time.monotonic() - started, 3)
                log.info("completion given up", prompt=len(job.work.prompt), seconds=seconds)

    def _note(self, finished: Finished, seconds: float) -> None:
        self._durations.append(seconds)
        log.info(
            "completion",
            prompt=finished.prompt,
            cached=finished.cached,
            generated=finished.generated,
            finish=finished.reason,
            seconds=round(seconds, 3),
        )

"""Who is answered when: a bounded queue, and one thread that owns the model.

Requests join and leave the work under way between two steps of it. The server sees only ``ready``,
``submit`` and the ticket's events.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from appliance.errors import ApplianceError, ModelError, NotReady, RateLimited
from appliance.llm.engine.speed import Speed
from appliance.llm.engine.work import CancelFlag, Ended, Event, Failed, Finished, Job, Work
from appliance.llm.interface import ChatMessage, Structured
from appliance.logs import get_logger

if TYPE_CHECKING:
    from appliance.llm.engine.tuning import Capacity

log = get_logger()

RETRY_WHILE_LOADING = 2
"""Seconds; loading takes a few, the very first start some more."""
LONGEST_RETRY = 60
_FIRST_ANSWERS: Final = 32
"""Tokens an answer is taken to have before any was finished."""


class Generator(Protocol):
    """A loaded model; ``encode`` and ``constraint`` are safe in any thread, the others belong to
    the scheduler's."""

    context: int
    file_type: str
    streams: int
    speed: Speed

    def encode(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]: ...

    def constraint(self, asked: Structured) -> Any: ...

    @property
    def busy(self) -> bool: ...

    def has_room(self, work: Work) -> bool: ...

    def begin(self, job: Job) -> None: ...

    def step(self, now: float) -> list[Ended]: ...

    def unfinished(self) -> tuple[int, int]: ...

    def give_up(self, why: Failed) -> list[Ended]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory and the SHA-256 of its file."""

    generator: Generator
    sha256: str
    capacity: Capacity | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """What ``/health`` says."""

    state: Literal["loading", "ok", "failed"]
    model: str
    sha256: str | None = None
    file_type: str | None = None
    detail: str = ""
    capacity: Capacity | None = None


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
    :param waiting: how many requests may wait beside those under way.
    """

    def __init__(
        self, load: Callable[[Callable[[str], None]], Loaded], *, model: str, waiting: int
    ) -> None:
        self._load = load
        self._limit = waiting
        self._status = Status("loading", model, detail="starting")
        self._generator: Generator | None = None
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: dict[Job, float] = {}  # and when each began
        self._draining = self._stopping = False
        self._answer_tokens = float(_FIRST_ANSWERS)
        self._unfinished = (0, 0)
        # The logger's bound values live in the context, which a new thread would not have.
        self._thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._run,), name="model", daemon=True
        )

    @property
    def status(self) -> Status:
        """The state now; never waits for anything."""
        return self._status

    @property
    def under_way(self) -> tuple[int, int]:
        """How many requests are being answered, and how many wait."""
        return len(self._running), len(self._waiting)

    @property
    def pace(self) -> dict[str, float]:
        """Tokens a second of reading and of writing as measured last; 0 before the first work."""
        speed = self._generator.speed if self._generator else Speed()
        return {"reading": round(speed.reading, 1), "writing": round(speed.writing, 1)}

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
        generator = self.ready()
        with self._changed:
            for job in [job for job in self._waiting if job.flag.is_set()]:
                self._waiting.remove(job)
            free = max(0, generator.streams - len(self._running))
            if len(self._waiting) >= self._limit + free:
                raise RateLimited(
                    "The engine's queue is full.", retry_after=self._patience(generator)
                )
            flag = CancelFlag()
            ticket = Ticket(flag)
            self._waiting.append(Job(work, flag, ticket.emitter()))
            self._changed.notify()
        return ticket

    def drain(self) -> None:
        """Refuse new work from now on; what runs and waits is still answered."""
        self._draining = True

    def stop(self) -> None:
        """Give up on everything that runs or waits, tell whoever asked, and end the thread."""
        with self._changed:
            self._draining = self._stopping = True
            given_up = [*self._waiting, *self._running]
            self._waiting.clear()
            self._changed.notify()
        for job in given_up:
            job.flag.set()
            job.emit(Failed("stopping", "The engine is stopping."))

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end; False if it is still inside the library after ``seconds``."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _patience(self, generator: Generator) -> int:
        """Seconds until those under way and those who wait should be answered, at the speed
        measured last."""
        to_read = sum(len(job.work.prompt) for job in self._waiting)
        answers = [min(self._answer_tokens, job.work.max_tokens) for job in self._waiting]
        unread, unwritten = self._unfinished
        to_write = sum(answers) + min(unwritten, self._answer_tokens * len(self._running))
        seconds = generator.speed.seconds(to_read=to_read + unread, to_write=round(to_write))
        return max(1, min(LONGEST_RETRY, math.ceil(seconds)))

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
        generator = self._generator = loaded.generator
        self._status = replace(
            self._status,
            state="ok",
            sha256=loaded.sha256,
            file_type=generator.file_type,
            detail="",
            capacity=loaded.capacity,
        )
        log.info("model loaded", seconds=round(time.monotonic() - started, 1), sha256=loaded.sha256)
        while not self._stopping:
            # Not under the lock: a long request makes a context of its own, which takes a while.
            while (job := self._next(generator)) is not None:
                self._begin(generator, job)
            self._step(generator)
        generator.close()

    def _next(self, generator: Generator) -> Job | None:
        """The next job that can begin; waits for one if there is nothing else to do."""
        with self._changed:
            while not self._waiting and not generator.busy and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return None
            for job in list(self._waiting):
                late = time.monotonic() > job.work.deadline
                if not (job.flag.is_set() or late or generator.has_room(job.work)):
                    continue
                self._waiting.remove(job)
                if job.flag.is_set():
                    continue
                if late:
                    job.emit(Failed("deadline_exceeded", "The engine had no time left for this."))
                    continue
                self._running[job] = time.monotonic()
                return job
        return None

    def _begin(self, generator: Generator, job: Job) -> None:
        try:
            generator.begin(job)
        except Exception as error:
            self._running.pop(job)
            detail = error.detail if isinstance(error, ModelError) else "The engine failed."
            job.emit(Failed("engine_error", detail))
            log.exception("completion failed", request=job.work.request)

    def _step(self, generator: Generator) -> None:
        try:
            ended = generator.step(time.monotonic())
        except Exception:
            # A defect: what is under way gets an error, the next request an answer.
            log.exception("step failed")
            ended = generator.give_up(Failed("engine_error", "The engine failed."))
        for one in ended:
            with self._changed:
                began = self._running.pop(one.job)
            self._note(one, time.monotonic() - began)
            if one.event is not None:
                one.job.emit(one.event)
        self._unfinished = generator.unfinished()

    def _note(self, ended: Ended, seconds: float) -> None:
        event = ended.event
        if isinstance(event, Finished):
            self._answer_tokens += 0.1 * (event.generated - self._answer_tokens)
            log.info(
                "completion",
                request=ended.job.work.request,
                prompt=event.prompt,
                cached=event.cached,
                generated=event.generated,
                finish=event.reason,
                seconds=round(seconds, 3),
            )
        elif event is None:
            work = ended.job.work
            log.info(
                "completion given up",
                request=work.request,
                prompt=len(work.prompt),
                seconds=round(seconds, 3),
            )

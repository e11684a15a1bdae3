"""The queue's promises, with a generator whose pace the test decides."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from appliance.errors import ModelError, NotReady, RateLimited, WeightsError
from appliance.llm.engine.scheduler import Loaded, Scheduler, Ticket
from appliance.llm.engine.speed import Speed
from appliance.llm.engine.work import Delta, Ended, Event, Failed, Finished, Job, Work
from appliance.llm.interface import ChatMessage, Structured

pytestmark = pytest.mark.anyio


class PacedGenerator:
    """Says one letter per permission, to each in turn; prompts starting with 0 fail, with -1 break
    the step, with -2 cannot begin."""

    context = 100
    file_type = "none"
    streams = 1

    def __init__(self) -> None:
        self.pace = threading.Semaphore(0)
        self.prompts: list[tuple[int, ...]] = []
        self.threads: set[str] = set()
        self.speed = Speed()
        self.closed = False
        self.under_way: list[list[Any]] = []

    def encode(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        return tuple(len(message.content) for message in messages)

    def constraint(self, asked: Structured) -> Any:
        raise AssertionError

    @property
    def busy(self) -> bool:
        return bool(self.under_way)

    def has_room(self, work: Work) -> bool:
        return len(self.under_way) < self.streams

    def begin(self, job: Job) -> None:
        self.prompts.append(job.work.prompt)
        if job.work.prompt[0] == -2:
            raise ModelError("No memory.")
        self.under_way.append([job, 0])

    def step(self, now: float) -> list[Ended]:
        self.threads.add(threading.current_thread().name)
        ended = []
        for entry in list(self.under_way):
            job, said = entry
            if job.work.prompt[0] == -1:
                raise RuntimeError("a defect")
            if job.work.prompt[0] == 0:
                ended.append(self.end(entry, Failed("engine_error", "llama_decode answered -3.")))
            elif job.flag.is_set():
                self.under_way.remove(entry)
                ended.append(Ended(job, None))
            elif self.pace.acquire(timeout=0.01):
                job.emit(Delta("x"))
                self.speed.wrote(1, 0.5)
                entry[1] += 1
                if said + 1 == job.work.max_tokens:
                    ended.append(
                        self.end(entry, Finished("length", len(job.work.prompt), 0, said + 1))
                    )
        return ended

    def end(self, entry: list[Any], event: Finished | Failed) -> Ended:
        self.under_way.remove(entry)
        return Ended(entry[0], event)

    def unfinished(self) -> tuple[int, int]:
        return 0, sum(job.work.max_tokens - said for job, said in self.under_way)

    def give_up(self, why: Failed) -> list[Ended]:
        return [self.end(entry, why) for entry in list(self.under_way)]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def generator() -> PacedGenerator:
    return PacedGenerator()


@pytest.fixture
async def scheduler(generator: PacedGenerator) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(lambda report: Loaded(generator, "cafe"), model="paced", waiting=2)
    scheduler.start()
    await until(lambda: scheduler.status.state == "ok")
    yield scheduler
    scheduler.stop()
    assert scheduler.join(5)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.001)


async def rest(ticket: Ticket) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(5):
        while True:
            events.append(await ticket.next())
            if not isinstance(events[-1], Delta):
                return events


async def test_answers_in_order_and_in_one_thread(
    scheduler: Scheduler, generator: PacedGenerator
) -> None:
    tickets = [scheduler.submit(Work((number,), 2)) for number in (1, 2)]
    generator.pace.release(4)
    for ticket in tickets:
        assert await rest(ticket) == [Delta("x"), Delta("x"), Finished("length", 1, 0, 2)]
    assert generator.prompts == [(1,), (2,)]
    assert generator.threads == {"model"}


async def test_says_what_is_served(scheduler: Scheduler) -> None:
    status = scheduler.status
    assert (status.state, status.model, status.sha256, status.file_type) == (
        "ok",
        "paced",
        "cafe",
        "none",
    )


async def test_a_full_queue_says_when_to_come_back(
    scheduler: Scheduler, generator: PacedGenerator
) -> None:
    tickets = [scheduler.submit(Work((1,), 1))]
    await until(lambda: generator.prompts != [])
    tickets += [scheduler.submit(Work((number,), 1)) for number in (2, 3)]
    with pytest.raises(RateLimited) as caught:
        scheduler.submit(Work((4,), 1))
    assert 1 <= caught.value.retry_after <= 60
    generator.pace.release(3)
    assert [len(await rest(ticket)) for ticket in tickets] == [2, 2, 2]


async def test_a_running_request_stops_when_given_up(
    scheduler: Scheduler, generator: PacedGenerator
) -> None:
    given_up = scheduler.submit(Work((1,), 50))
    generator.pace.release(1)
    assert await given_up.next() == Delta("x")
    given_up.cancel()
    next_one = scheduler.submit(Work((2,), 1))
    await until(lambda: generator.prompts == [(1,), (2,)])
    generator.pace.release(1)
    assert await rest(next_one) == [Delta("x"), Finished("length", 1, 0, 1)]


async def test_a_waiting_request_that_is_given_up_frees_its_place(
    scheduler: Scheduler, generator: PacedGenerator
) -> None:
    running = scheduler.submit(Work((1,), 1))
    await until(lambda: generator.prompts != [])
    waiting = [scheduler.submit(Work((number,), 1)) for number in (2, 3)]
    waiting[0].cancel()
    late = scheduler.submit(Work((4,), 1))
    generator.pace.release(3)
    for ticket in (running, waiting[1], late):
        await rest(ticket)
    assert generator.prompts == [(1,), (3,), (4,)]


async def test_a_ticket_nobody_holds_is_given_up(
    scheduler: Scheduler, generator: PacedGenerator
) -> None:
    running = scheduler.submit(Work((1,), 1))
    await until(lambda: generator.prompts != [])
    dropped = scheduler.submit(Work((2,), 1))
    del dropped
    gc.collect()
    last = scheduler.submit(Work((3,), 1))
    generator.pace.release(2)
    await rest(running)
    await rest(last)
    assert generator.prompts == [(1,), (3,)]


async def test_a_failure_costs_one_request(scheduler: Scheduler, generator: PacedGenerator) -> None:
    for number in (0, -1, -2):
        (event,) = await rest(scheduler.submit(Work((number,), 1)))
        assert isinstance(event, Failed)
        assert event.code == "engine_error"
    generator.pace.release(1)
    assert isinstance((await rest(scheduler.submit(Work((1,), 1))))[-1], Finished)


async def test_draining_refuses_new_work_and_finishes_the_old(
    scheduler: Scheduler, generator: PacedGenerator
) -> None:
    running = scheduler.submit(Work((1,), 1))
    waiting = scheduler.submit(Work((2,), 1))
    scheduler.drain()
    with pytest.raises(NotReady):
        scheduler.submit(Work((3,), 1))
    generator.pace.release(2)
    assert isinstance((await rest(running))[-1], Finished)
    assert isinstance((await rest(waiting))[-1], Finished)


async def test_stopping_tells_everybody(scheduler: Scheduler, generator: PacedGenerator) -> None:
    running = scheduler.submit(Work((1,), 9))
    await until(lambda: generator.prompts != [])
    waiting = scheduler.submit(Work((2,), 9))
    scheduler.stop()
    for ticket in (running, waiting):
        assert await rest(ticket) == [Failed("stopping", "The engine is stopping.")]
    assert scheduler.join(5)
    assert generator.closed


async def test_loading_refuses_work_and_reports_progress(generator: PacedGenerator) -> None:
    go_on = threading.Event()

    def load(report: Callable[[str], None]) -> Loaded:
        report("measuring")
        go_on.wait(5)
        return Loaded(generator, "cafe")

    scheduler = Scheduler(load, model="slow", waiting=1)
    scheduler.start()
    await until(lambda: scheduler.status.detail == "measuring")
    assert scheduler.status.state == "loading"
    with pytest.raises(NotReady, match="measuring") as caught:
        scheduler.submit(Work((1,), 1))
    assert caught.value.retry_after >= 1
    scheduler.stop()
    go_on.set()
    assert scheduler.join(5)


async def test_a_model_that_cannot_be_loaded_is_told() -> None:
    def load(report: Callable[[str], None]) -> Loaded:
        raise WeightsError("The file is gone.", hint="Bring it back.")

    scheduler = Scheduler(load, model="gone", waiting=1)
    scheduler.start()
    await until(lambda: scheduler.status.state == "failed")
    assert scheduler.status.detail == "The file is gone. Bring it back."
    with pytest.raises(NotReady, match="The file is gone"):
        scheduler.ready()
    assert scheduler.join(5)


async def test_requests_join_and_leave_the_work_under_way(
    scheduler: Scheduler, generator: PacedGenerator
) -> None:
    generator.streams = 2
    long, short = scheduler.submit(Work((1,), 4)), scheduler.submit(Work((2,), 1))
    late = scheduler.submit(Work((3,), 1))
    await until(lambda: scheduler.under_way == (2, 1))
    generator.pace.release(2)
    assert await rest(short) == [Delta("x"), Finished("length", 1, 0, 1)]
    await until(lambda: generator.prompts == [(1,), (2,), (3,)])
    generator.pace.release(4)
    assert len(await rest(late)) == 2
    assert len(await rest(long)) == 5


async def test_work_whose_time_is_up_is_not_begun(
    scheduler: Scheduler, generator: PacedGenerator
) -> None:
    running = scheduler.submit(Work((1,), 1))
    await until(lambda: generator.prompts != [])
    late = scheduler.submit(Work((2,), 1, deadline=time.monotonic() - 1))
    (event,) = await rest(late)
    assert isinstance(event, Failed)
    assert event.code == "deadline_exceeded"
    generator.pace.release(1)
    await rest(running)
    assert generator.prompts == [(1,)]


async def test_the_time_to_come_back_grows_with_what_is_to_do(
    scheduler: Scheduler, generator: PacedGenerator
) -> None:
    """At two tokens a second, sixty times thirty tokens take longer than three short answers."""
    waits = []
    for tokens in (1, 30):
        generator.pace.release(1)
        await rest(scheduler.submit(Work((1,), 1)))
        tickets = [scheduler.submit(Work((1,), tokens)) for _ in range(3)]
        with pytest.raises(RateLimited) as caught:
            scheduler.submit(Work((1,), tokens))
        waits.append(caught.value.retry_after)
        generator.pace.release(3 * tokens)
        for ticket in tickets:
            await rest(ticket)
    assert 1 <= waits[0] < waits[1] <= 60

"""The queue's promises, with a generator whose pace the test decides."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import pytest

from appliance.errors import ModelError, NotReady, RateLimited, WeightsError
from appliance.llm.engine.scheduler import Loaded, Scheduler, Ticket
from appliance.llm.engine.work import CancelFlag, Delta, Event, Failed, Finished, Work
from appliance.llm.interface import ChatMessage

pytestmark = pytest.mark.anyio


class PacedGenerator:
    """Says one letter per permission; prompts starting with 0 fail, with -1 break."""

    context = 100
    file_type = "none"

    def __init__(self) -> None:
        self.pace = threading.Semaphore(0)
        self.prompts: list[tuple[int, ...]] = []
        self.threads: set[str] = set()
        self.closed = False

    def encode(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        return tuple(len(message.content) for message in messages)

    def generate(self, work: Work, flag: CancelFlag) -> Iterator[Delta | Finished]:
        self.prompts.append(work.prompt)
        self.threads.add(threading.current_thread().name)
        if work.prompt[0] == 0:
            raise ModelError("llama_decode answered -3 at position 7.")
        if work.prompt[0] == -1:
            raise RuntimeError("a defect")
        for _ in range(work.max_tokens):
            while not self.pace.acquire(timeout=0.01):
                if flag.is_set():
                    return
            yield Delta("x")
        yield Finished("length", len(work.prompt), 0, work.max_tokens)

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
    failed = [scheduler.submit(Work((number,), 1)) for number in (0, -1)]
    for ticket in failed:
        (event,) = await rest(ticket)
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

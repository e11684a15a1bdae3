"""The delivery loop against receivers of every kind, over real sockets on the loopback address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from appliance.domain import policy
from appliance.domain.events import TEST_EVENT, body
from appliance.domain.receivers import AllowList, ReceiverGuard
from appliance.domain.webhook_secrets import WebhookSecrets
from appliance.errors import StorageUnavailable
from appliance.jobs.deliver import SWITCHED_OFF, Deliverer
from appliance.jobs.schedule import Schedule
from appliance.jobs.sending import Sender, resolve
from appliance.storage import Database, Records, new_id
from appliance.storage.records import Delivery, Webhook, Worker
from tests.webhook_receivers import OK, Received, Receiver, Reply

pytestmark = [pytest.mark.anyio, pytest.mark.loopback]

T = TypeVar("T")

UPDATED = "kb.updated"
SECRETS = WebhookSecrets(b"k" * 32)
SECRET = "seed"
GUARD = ReceiverGuard(AllowList.parse(["127.0.0.0/8:*"]), resolve)
PATIENCE = 60.0
LONG = 30.0
"""Deadline of attempts that nobody waits for."""
HOUR = timedelta(hours=1)


class Clock:
    """Runs like the machine's, and can be moved."""

    def __init__(self) -> None:
        self.moved = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.moved


class Outbox:
    """A database with webhooks, and workers at it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = Clock()
        self.pauses: Sequence[float] = [600.0]

    def deliverer(self, name: str = "a", *, timeout: float = LONG) -> Deliverer:
        now = self.clock()
        return Deliverer(
            self.database,
            Sender(GUARD, SECRETS, timeout=timeout).send,
            Schedule(self.pauses, timedelta(days=5)),
            Worker(f"{name}:{new_id()}", "here", 1, now, now),
            place=f"{name}:",
            clock=self.clock,
        )

    @asynccontextmanager
    async def working(self, name: str = "a", **options: Any) -> AsyncIterator[Deliverer]:
        """A worker at work; it ends in good order, whatever still hangs."""
        deliverer = self.deliverer(name, **options)
        running = asyncio.create_task(deliverer.run())
        try:
            yield deliverer
        finally:
            deliverer.stop()
            await running
            await deliverer.drain(0.5)

    async def subscribe(self, receiver: Receiver, *types: str) -> Webhook:
        receiver.secret = SECRETS.shown(SECRET)
        url, wanted = receiver.url, types or (UPDATED,)
        return await self.write(lambda records: records.webhooks.add(url, wanted, SECRET))

    async def write(self, work: Callable[[Records], T]) -> T:
        return await self.database.write(work)

    async def happen(self, count: int = 1, first: int = 0) -> list[str]:
        """So many events, each in a transaction of its own; their ids."""
        return [
            await self.write(lambda records, n=n: records.events.add(UPDATED, data={"version": n}))
            for n in range(first, first + count)
        ]

    async def press_test(self, webhook: Webhook) -> str:
        event_id = new_id()
        text = body(event_id, TEST_EVENT, self.clock(), {"webhook_id": webhook.id})
        (delivery_id,) = await self.write(
            lambda records: records.deliveries.add([webhook.id], event_id, TEST_EVENT, text)
        )
        return delivery_id

    async def deliveries(self, webhook: Webhook, **filters: Any) -> Sequence[Delivery]:
        return await self.database.read(
            lambda records: records.deliveries.list(1000, webhook_id=webhook.id, **filters)
        )

    async def webhook(self, webhook: Webhook) -> Webhook:
        found = await self.database.read(lambda records: records.webhooks.get(webhook.id))
        assert found is not None
        return found

    async def states(self, webhook: Webhook) -> set[str]:
        return {each.state for each in await self.deliveries(webhook)}

    async def settle(self, webhook: Webhook, *states: str) -> Sequence[Delivery]:
        """Wait until its deliveries are in those states only."""
        await until_async(lambda: self._in(webhook, set(states)), f"{states}")
        return await self.deliveries(webhook)

    async def _in(self, webhook: Webhook, states: set[str]) -> bool:
        found = await self.states(webhook)
        return bool(found) and found <= states


async def until_async(holds: Callable[[], Any], what: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            found = holds()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.01)
    raise AssertionError(what)


@pytest.fixture
def receivers() -> Iterator[Callable[..., Receiver]]:
    with ExitStack() as stack:
        yield lambda *reply: stack.enter_context(Receiver(*reply))


@pytest.fixture
async def outbox(sqlite_database: Database) -> Outbox:
    return Outbox(sqlite_database)


Make = Callable[..., Receiver]


async def test_every_event_arrives_once_signed_and_leaves_an_attempt(
    database: Database, receivers: Make
) -> None:
    outbox, receiver = Outbox(database), receivers()
    webhook = await outbox.subscribe(receiver)
    async with outbox.working() as deliverer:
        happened = await outbox.happen(20)
        deliverer.wake()
        found = await outbox.settle(webhook, "delivered")
    assert receiver.counts == dict.fromkeys(happened, 1)
    assert receiver.all_valid
    assert json.loads(receiver.received[0].body)["type"] == UPDATED
    assert {(each.attempts, each.failures, each.response_status) for each in found} == {(1, 0, 200)}
    attempts = await database.read(lambda records: records.deliveries.attempts(found[0].id))
    assert [(each.number, each.status, each.error, each.response) for each in attempts] == [
        (1, 200, None, "ok")
    ]
    assert attempts[0].duration_ms is not None


@pytest.mark.parametrize("size", [4 * 2**20, pytest.param(300 * 2**20, marks=pytest.mark.full)])
async def test_receivers_that_misbehave_hold_up_nobody_else(
    outbox: Outbox, receivers: Make, size: int
) -> None:
    bad = {
        "error": Reply(500, body=b"oops"),
        "busy": Reply(429, {"Retry-After": "7200"}),
        "reset": Reply(reset=True),
        "hangs": Reply(hang=3600),
        "huge": Reply(500, huge=size),
    }
    hooks = {name: await outbox.subscribe(receivers(reply)) for name, reply in bad.items()}
    well = receivers()
    good = await outbox.subscribe(well)
    async with outbox.working():
        happened = await outbox.happen(30)
        await outbox.settle(good, "delivered")
        assert set(well.counts) == set(happened)
        # It was never waited for: its first attempts still hang.
        hanging = await outbox.deliveries(hooks["hangs"], state="sending")
        assert len(hanging) == policy.WEBHOOK_AT_ONCE
        assert {each.attempts for each in hanging} == {1}
        for name in ("error", "busy", "reset", "huge"):
            failed = await outbox.settle(hooks[name], "pending", "sending")
            await until_async(
                lambda name=name: _all_tried(outbox, hooks[name], len(happened)), f"{name} tried"
            )
            failed = await outbox.deliveries(hooks[name])
            assert {each.response_status for each in failed} == {
                {"error": 500, "busy": 429, "reset": None, "huge": 500}[name]
            }
            assert all(each.last_error for each in failed)
    huge = await outbox.deliveries(hooks["huge"])
    attempts = await outbox.database.read(lambda records: records.deliveries.attempts(huge[0].id))
    assert len(attempts[0].response or "") == policy.WEBHOOK_RESPONSE_KEPT
    later = outbox.clock() + timedelta(seconds=7100)
    busy = await outbox.deliveries(hooks["busy"])
    assert all(each.next_attempt_at is not None and each.next_attempt_at > later for each in busy)


async def _all_tried(outbox: Outbox, webhook: Webhook, count: int) -> bool:
    found = await outbox.deliveries(webhook, state="pending")
    return len([each for each in found if each.failures == 1]) == count


async def test_a_receiver_is_asked_a_few_times_at_once_at_most(
    outbox: Outbox, receivers: Make
) -> None:
    receiver = receivers(Reply(hang=3600))
    webhook = await outbox.subscribe(receiver)
    async with outbox.working(timeout=1.0):
        await outbox.happen(3 * policy.WEBHOOK_AT_ONCE)
        most = 0
        while len(receiver.received) < 3 * policy.WEBHOOK_AT_ONCE:
            most = max(most, len(await outbox.deliveries(webhook, state="sending")))
            await asyncio.sleep(0.02)
    assert most == policy.WEBHOOK_AT_ONCE


async def test_a_failed_delivery_is_tried_again_with_the_same_id_and_body(
    outbox: Outbox, receivers: Make
) -> None:
    answers = [Reply(503), Reply(302, {"Location": "/elsewhere"}), OK]
    receiver = receivers(lambda _: answers.pop(0))
    outbox.pauses = [0.1, 0.1, 600.0]
    webhook = await outbox.subscribe(receiver)
    async with outbox.working():
        (event_id,) = await outbox.happen()
        (done,) = await outbox.settle(webhook, "delivered")
    assert receiver.counts == {event_id: 3}
    assert len({each.body for each in receiver.received}) == 1
    assert receiver.all_valid
    attempts = await outbox.database.read(lambda records: records.deliveries.attempts(done.id))
    assert [each.status for each in attempts] == [503, 302, 200]
    assert [each.number for each in attempts] == [1, 2, 3]
    assert (await outbox.webhook(webhook)).failing_since is None


async def test_what_failed_too_often_is_a_dead_letter_until_somebody_sends_it_again(
    outbox: Outbox, receivers: Make
) -> None:
    receiver = receivers(Reply(500))
    outbox.pauses = [0.05, 0.05]
    webhook = await outbox.subscribe(receiver)
    async with outbox.working() as deliverer:
        await outbox.happen(2)
        dead = await outbox.settle(webhook, "dead")
        assert {each.attempts for each in dead} == {3}
        assert sum(receiver.counts.values()) == 6
        receiver.reply = OK
        await outbox.write(lambda records: records.deliveries.requeue(dead[0].id))
        deliverer.wake()
        await until_async(lambda: _states(outbox, webhook, {"dead", "delivered"}), "one delivered")
        created = min(each.created_at for each in dead)
        number = await outbox.write(
            lambda records: records.deliveries.requeue_between(created, outbox.clock() + HOUR)
        )
        assert number == 1
        deliverer.wake()
        found = await outbox.settle(webhook, "delivered")
    assert {each.attempts for each in found} == {4}
    assert all(count == 4 for count in receiver.counts.values())


async def _states(outbox: Outbox, webhook: Webhook, states: set[str]) -> bool:
    return await outbox.states(webhook) == states


async def test_one_that_is_gone_is_switched_off_at_once_and_told_of(
    outbox: Outbox, receivers: Make
) -> None:
    gone = await outbox.subscribe(receivers(Reply(410)))
    watching = receivers()
    watcher = await outbox.subscribe(watching, "webhook.disabled")
    async with outbox.working():
        await outbox.happen(3)
        await outbox.settle(gone, "dead")
        await outbox.settle(watcher, "delivered")
    found = await outbox.webhook(gone)
    assert (found.active, found.disabled_reason) == (False, "gone")
    (told,) = watching.received
    document = json.loads(told.body)
    assert document["type"] == "webhook.disabled"
    assert document["data"] == {"webhook_id": gone.id, "reason": "gone"}
    (entry,) = await outbox.database.read(
        lambda records: records.audit.list(5, action="webhook.disable")
    )
    assert (entry.actor, entry.target) == ("appliance", gone.id)


async def test_days_of_failures_only_switch_a_webhook_off(outbox: Outbox, receivers: Make) -> None:
    answers = iter([Reply(500), OK])
    receiver = receivers(lambda _: next(answers, Reply(500)))
    outbox.pauses = [0.05] * 3
    webhook = await outbox.subscribe(receiver)
    async with outbox.working() as deliverer:
        await outbox.happen()
        await outbox.settle(webhook, "delivered")
        outbox.clock.moved += timedelta(days=30)
        # The success in between counts: the failures begin now.
        await outbox.happen()
        deliverer.wake()
        await until_async(lambda: _dead(outbox, webhook, 1), "a dead letter")
        assert (await outbox.webhook(webhook)).active
        outbox.clock.moved += timedelta(days=4)
        await outbox.happen()
        deliverer.wake()
        await until_async(lambda: _dead(outbox, webhook, 2), "another dead letter")
        assert (await outbox.webhook(webhook)).active
        outbox.clock.moved += timedelta(days=2)
        await outbox.happen()
        deliverer.wake()
        await until_async(lambda: _dead(outbox, webhook, 3), "the last dead letter")
    found = await outbox.webhook(webhook)
    assert (found.active, found.disabled_reason) == (False, "failing")
    last = (await outbox.deliveries(webhook))[0]
    assert (last.attempts, last.last_error) == (1, SWITCHED_OFF)


async def _dead(outbox: Outbox, webhook: Webhook, count: int) -> bool:
    return len(await outbox.deliveries(webhook, state="dead")) == count


async def test_the_test_button_sends_once_also_to_one_that_is_switched_off(
    outbox: Outbox, receivers: Make
) -> None:
    receiver = receivers()
    webhook = await outbox.subscribe(receiver)
    off = lambda records: records.webhooks.update(webhook.id, active=False)  # noqa: E731
    await outbox.happen()
    await outbox.write(off)
    first = await outbox.press_test(webhook)
    async with outbox.working() as deliverer:
        await outbox.settle(webhook, "delivered", "dead")
        receiver.reply = Reply(500)
        await outbox.write(lambda records: records.webhooks.update(webhook.id, active=True))
        second = await outbox.press_test(webhook)
        deliverer.wake()
        await outbox.settle(webhook, "delivered", "dead")
    found = {each.id: each for each in await outbox.deliveries(webhook)}
    assert found.pop(first).state == "delivered"
    assert (found.pop(second).state, len(receiver.received)) == ("dead", 2)
    (event,) = found.values()
    assert (event.state, event.attempts, event.last_error) == ("dead", 0, SWITCHED_OFF)
    # A test says nothing about how the webhook does.
    assert (await outbox.webhook(webhook)).failing_since is None


@pytest.mark.parametrize("moved", [HOUR, -HOUR], ids=["forward", "back"])
async def test_a_clock_that_jumps_loses_nothing(
    database: Database, receivers: Make, moved: timedelta
) -> None:
    outbox, receiver = Outbox(database), receivers(Reply(hang=0.02))
    webhook = await outbox.subscribe(receiver)
    # One dies with what it holds, by the old clock.
    dead = outbox.deliverer("dead", timeout=LONG)
    happened = await outbox.happen(6)
    receiver.reply = Reply(hang=3600)
    await dead.sweep()
    assert await dead.look() == policy.WEBHOOK_AT_ONCE
    await until_async(lambda: len(receiver.received) == policy.WEBHOOK_AT_ONCE, "attempts")
    receiver.reply = Reply(hang=0.02)
    outbox.clock.moved = moved
    async with outbox.working("first") as first, outbox.working("second") as second:
        for step in range(4):
            happened += await outbox.happen(5, first=10 * step)
            first.wake()
            second.wake()
            outbox.clock.moved = moved if step % 2 else timedelta(0)
            for each in (first, second):
                await each.sweep()
        outbox.clock.moved = moved
        for each in (first, second):
            await each.sweep()
            each.wake()
        await outbox.settle(webhook, "delivered")
    assert set(receiver.counts) == set(happened)
    await dead.drain(0.1)


async def test_an_outcome_waits_for_a_database_that_is_away(
    sqlite_url: str, receivers: Make
) -> None:
    class Flaky(Database):
        away = 0

        async def write(self, work: Callable[[Records], T]) -> T:
            if self.away:
                self.away -= 1
                raise StorageUnavailable
            return await super().write(work)

    database = Flaky(sqlite_url)
    outbox = Outbox(database)

    def reply(_: Received) -> Reply:
        database.away = 2
        return OK

    receiver = receivers(reply)
    webhook = await outbox.subscribe(receiver)
    await outbox.happen()
    async with outbox.working():
        await outbox.settle(webhook, "delivered")
    assert list(receiver.counts.values()) == [1]
    await database.aclose()


async def test_a_worker_that_is_told_to_stop_finishes_what_it_began(
    outbox: Outbox, receivers: Make
) -> None:
    receiver = receivers(Reply(hang=0.5))
    webhook = await outbox.subscribe(receiver)
    await outbox.happen()
    deliverer = outbox.deliverer()
    running = asyncio.create_task(deliverer.run())
    await until_async(lambda: receiver.received, "an attempt")
    assert await outbox.database.read(lambda records: records.workers.latest()) is not None
    deliverer.stop()
    await running
    assert await outbox.states(webhook) == {"sending"}
    await deliverer.drain(PATIENCE)
    assert await outbox.states(webhook) == {"delivered"}
    assert await outbox.database.read(lambda records: records.workers.latest()) is None


async def test_old_deliveries_are_removed(outbox: Outbox, receivers: Make) -> None:
    webhook = await outbox.subscribe(receivers())
    async with outbox.working() as deliverer:
        await outbox.happen(2)
        await outbox.settle(webhook, "delivered")
        assert await deliverer.prune(HOUR) == 0
        outbox.clock.moved = 2 * HOUR
        assert await deliverer.prune(HOUR) == 2
    assert await outbox.deliveries(webhook) == []

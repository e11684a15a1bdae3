"""The outbox when two are at it at the same moment: webhooks that are deleted under an event,
workers that claim, take back and finish, and those who tell the same thing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing

import pytest
from sqlalchemy import func, select

from appliance.storage import Database, Records, tables
from appliance.storage.deliveries import LOST, Claimed, DeliveryRepository
from appliance.storage.records import ServedModel
from tests.integration.test_storage_webhooks import (
    LEASE,
    NOW,
    attempt,
    claim,
    deliveries,
    hook,
    later,
    updated,
)
from tests.rivals import impatient, met, run, stopped, uncommitted

pytestmark = pytest.mark.anyio

EVENTS = select(func.count()).select_from(tables.analytics_events)


def delete(webhook_id: str) -> Callable[[Records], bool]:
    return lambda records: records.webhooks.delete(webhook_id)


def finish(claimed: Claimed, seconds: float = 1) -> Callable[[Records], bool]:
    return lambda records: records.deliveries.finish(
        claimed, attempt(claimed), "delivered", later(seconds)
    )


def release(records: Records) -> int:
    """What a sweep does when the leases of all that was claimed have just run out."""
    return records.deliveries.release(later(LEASE), LEASE)


def analyze(records: Records) -> None:
    records.events._connection.exec_driver_sql("ANALYZE webhook_deliveries")


def seen(model: str) -> Callable[[Records], ServedModel | None]:
    return lambda records: records.served_model.replace(ServedModel(model, None, NOW))


# --- a webhook is deleted while an event is told of -----------------------------------------------


async def test_an_event_outlives_a_webhook_that_is_just_being_deleted(
    database: Database, database_url: str
) -> None:
    """The event comes with a customer's answer, which an administrator must not break."""
    going, staying = [await database.write(hook()) for _ in range(2)]
    async with uncommitted(database_url, delete(going.id)) as deleting:
        telling = asyncio.create_task(database.write(updated))
        await met(database_url, telling)
    assert deleting.result()
    event_id = await telling
    assert [(each.event_id, each.webhook_id) for each in await deliveries(database)] == [
        (event_id, staying.id)
    ]


async def test_a_webhook_that_an_event_has_found_is_deleted_after_it(
    database: Database, database_url: str
) -> None:
    going = await database.write(hook())
    async with aclosing(Database(database_url)) as rival:
        # It has found its webhooks, and not written their deliveries yet.
        async with stopped(DeliveryRepository, "add", rival.write(updated)) as telling:
            deleting = asyncio.create_task(database.write(delete(going.id)))
            await met(database_url, deleting)
        assert telling.result()
        assert await deleting
    assert await deliveries(database) == []
    assert await database.read(run(EVENTS)) == 1


async def test_events_told_at_once_wait_neither_for_each_other_nor_for_outcomes(
    postgresql_url: str,
) -> None:
    """What keeps a webhook from being deleted is no lock on it: all customers would queue there."""
    async with impatient(postgresql_url) as database:
        webhook = await database.write(hook())
        async with uncommitted(postgresql_url, updated):
            await database.write(updated)
            await database.write(lambda records: records.webhooks.failed(webhook.id, NOW))
            await database.write(lambda records: records.webhooks.succeeded(webhook.id))
        assert len(await deliveries(database)) == 2


# --- workers --------------------------------------------------------------------------------------


async def test_a_worker_that_claims_leaves_the_rest_to_others_at_once(postgresql_url: str) -> None:
    """Neither does the second wait for the first, nor does it get the same, nor less than there
    is."""
    async with impatient(postgresql_url) as database:
        await database.write(hook())
        await database.write(lambda records: [updated(records, n) for n in range(8)])
        async with uncommitted(postgresql_url, claim("w1", limit=3)) as one:
            second = await database.write(claim("w2", limit=3))
            third = await database.write(claim("w3", limit=3))
        taken = [[each.delivery.id for each in those] for those in (one.result(), second, third)]
        assert [len(those) for those in taken] == [3, 3, 2]
        assert len({each for those in taken for each in those}) == 8
        assert {each.state for each in await deliveries(database)} == {"sending"}


async def test_a_claim_takes_no_more_than_its_limit_however_it_is_planned(
    postgresql_url: str,
) -> None:
    """A table that held one row when PostgreSQL last looked, as after a quiet night: it then reads
    a subselect once for each row."""
    async with impatient(postgresql_url) as database:
        await database.write(hook())
        await database.write(updated)
        await database.write(analyze)
        await database.write(lambda records: [updated(records, n) for n in range(9)])
        assert len(await database.write(claim(limit=3))) == 3
        states = [each.state for each in await deliveries(database)]
    assert (states.count("sending"), states.count("pending")) == (3, 7)


async def test_what_is_being_finished_is_not_taken_back(postgresql_url: str) -> None:
    """Its lease has run out, but the outcome is known: it would be sent twice and forget the
    first."""
    async with impatient(postgresql_url) as database:
        await database.write(hook())
        await database.write(updated)
        (mine,) = await database.write(claim("slow"))
        async with uncommitted(postgresql_url, finish(mine, LEASE)) as finishing:
            assert await database.write(release) == 0
        assert finishing.result()
        assert await database.write(release) == 0
        (done,) = await deliveries(database)
        assert (done.state, done.attempts, done.last_error) == ("delivered", 1, None)


async def test_what_has_been_taken_back_is_not_finished(
    database: Database, database_url: str
) -> None:
    """The one whose lease ran out comes with its outcome while another takes over."""
    await database.write(hook())
    await database.write(updated)
    (slow,) = await database.write(claim("slow"))

    def take_over(records: Records) -> Sequence[Claimed]:
        assert records.deliveries.release(later(LEASE), LEASE) == 1
        return claim("quick", later(LEASE))(records)

    async with uncommitted(database_url, take_over) as taking:
        finishing = asyncio.create_task(database.write(finish(slow)))
        await met(database_url, finishing)
    assert not await finishing
    (quick,) = taking.result()
    (held,) = await deliveries(database)
    assert (held.state, held.attempts) == ("sending", 2)
    made = await database.read(lambda records: records.deliveries.attempts(held.id))
    assert [(each.number, each.error) for each in made] == [(1, LOST)]
    assert await database.write(finish(quick, LEASE))


async def test_of_two_that_sweep_one_takes_back(database: Database, database_url: str) -> None:
    await database.write(hook())
    await database.write(updated)
    await database.write(claim("dead"))
    async with uncommitted(database_url, release) as first:
        second = asyncio.create_task(database.write(release))
        await met(database_url, second)
    assert (first.result(), await second) == (1, 0)
    (lost,) = await deliveries(database)
    assert (lost.state, lost.attempts) == ("pending", 1)


# --- told once ------------------------------------------------------------------------------------


async def test_of_two_that_see_a_switch_of_models_one_tells(
    database: Database, database_url: str
) -> None:
    """As many API processes as there are look at the engine, at about the same time."""
    await database.write(seen("small"))
    async with uncommitted(database_url, seen("large")) as first:
        second = asyncio.create_task(database.write(seen("large")))
        await met(database_url, second)
    before = first.result()
    assert before is not None
    assert before.model == "small"
    assert await second is None


async def test_of_two_that_switch_a_webhook_off_one_tells(
    database: Database, database_url: str
) -> None:
    webhook = await database.write(hook())
    disable = lambda records: records.webhooks.disable(webhook.id, "gone", NOW)  # noqa: E731
    async with uncommitted(database_url, disable) as first:
        second = asyncio.create_task(database.write(disable))
        await met(database_url, second)
    assert (first.result(), await second) == (True, False)

"""The outbox on both databases: written with the change, claimed by one, given back by the dead,
pruned."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from appliance.domain import events
from appliance.errors import Conflict
from appliance.storage import Database, Records, tables
from appliance.storage.deliveries import LOST, Claimed
from appliance.storage.records import Attempt, ServedModel, Webhook, Worker

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LEASE = 60.0
UPDATED = "kb.updated"


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def hook(*types: str, url: str = "https://desk.lan/hook") -> Callable[[Records], Webhook]:
    return lambda records: records.webhooks.add(url, types or [UPDATED], "sealed")


def updated(records: Records, version: int = 1) -> str:
    return records.events.add(UPDATED, data={"version": version})


def claim(
    worker: str = "w1", now: datetime = NOW, limit: int = 10, webhook_id: str | None = None
) -> Callable[[Records], Sequence[Claimed]]:
    return lambda records: records.deliveries.claim(
        worker, now, LEASE, limit, webhook_id=webhook_id
    )


def attempt(claimed: Claimed, status: int | None = 200, error: str | None = None) -> Attempt:
    return Attempt(claimed.delivery.attempts, NOW, 12, status, error, "ok")


async def deliveries(database: Database, **filters: Any) -> Sequence[Any]:
    return await database.read(lambda records: records.deliveries.list(100, **filters))


async def test_an_event_is_written_once_for_each_webhook_that_wants_it(database: Database) -> None:
    wanting = await database.write(hook(UPDATED, "query.created"))
    also = await database.write(hook())
    await database.write(hook("query.created"))
    off = await database.write(hook())
    await database.write(lambda records: records.webhooks.update(off.id, active=False))

    event_id = await database.write(updated)

    found = await deliveries(database)
    assert {each.webhook_id for each in found} == {wanting.id, also.id}
    assert {(each.event_id, each.state, each.attempts) for each in found} == {
        (event_id, "pending", 0)
    }
    document = json.loads(found[0].body)
    assert found[0].body == found[1].body
    assert document.pop("timestamp").endswith("+00:00")
    assert document == {"id": event_id, "type": UPDATED, "version": 1, "data": {"version": 1}}


async def test_a_change_that_fails_leaves_no_event_and_wakes_nobody(database_url: str) -> None:
    woken: list[int] = []
    database = Database(database_url, wake=lambda: woken.append(1))
    await database.write(hook())

    def failing(records: Records) -> None:
        updated(records)
        raise ValueError("in vain")

    with pytest.raises(ValueError, match="in vain"):
        await database.write(failing)
    assert await deliveries(database) == []
    assert woken == []
    await database.write(updated)
    assert len(await deliveries(database)) == len(woken) == 1
    await database.write(lambda records: records.events.add("asked"))
    assert len(woken) == 1
    await database.aclose()


async def test_an_event_without_its_fields_is_refused_even_when_nobody_listens(
    database: Database,
) -> None:
    for data in ({}, {"version": 1, "secret": "x"}):
        with pytest.raises(TypeError):
            await database.write(lambda records, data=data: records.events.add(UPDATED, data=data))


def test_every_type_has_data_and_nothing_else_has() -> None:
    assert set(events.DATA) == {*events.EVENTS, events.TEST_EVENT}


async def test_rivals_never_get_the_same_delivery(database: Database, database_url: str) -> None:
    await database.write(hook())
    await database.write(lambda records: [updated(records, n) for n in range(40)])
    others = [Database(database_url) for _ in range(4)]
    taken: list[str] = []

    async def work(at: int, own: Database) -> None:
        while found := await own.write(claim(f"w{at}", limit=3)):
            taken.extend(each.delivery.id for each in found)

    await asyncio.gather(*(work(at, own) for at, own in enumerate(others)))
    for own in others:
        await own.aclose()
    assert len(taken) == len(set(taken)) == 40


async def test_claims_take_the_longest_due_first_and_what_is_not_due_never(
    database: Database,
) -> None:
    webhook = await database.write(hook())
    await database.write(lambda records: [updated(records, n) for n in range(3)])
    (first,) = await database.write(claim(limit=1))
    assert json.loads(first.delivery.body)["data"] == {"version": 0}
    assert (first.delivery.state, first.delivery.attempts) == ("sending", 1)
    assert first.endpoint.secret == "sealed"
    assert await database.write(
        lambda records: records.deliveries.finish(
            first, attempt(first, 500), "pending", NOW, next_attempt_at=later(300)
        )
    )
    assert await database.read(lambda records: records.deliveries.next_due(NOW)) == later(300)
    assert len(await database.write(claim())) == 2
    assert await database.read(lambda records: records.deliveries.waiting(later(299))) == []
    assert await database.read(lambda records: records.deliveries.waiting(later(300))) == [
        webhook.id
    ]
    (again,) = await database.write(claim(now=later(300)))
    assert (again.delivery.attempts, again.delivery.failures) == (2, 1)


async def test_claims_of_one_webhook_leave_the_others_alone(database: Database) -> None:
    first, second = [await database.write(hook()) for _ in range(2)]
    await database.write(updated)
    assert set(await database.read(lambda records: records.deliveries.waiting(NOW))) == {
        first.id,
        second.id,
    }
    (mine,) = await database.write(claim(webhook_id=second.id))
    assert mine.endpoint.id == second.id
    assert await database.read(lambda records: records.deliveries.waiting(NOW)) == [first.id]


async def test_only_whose_lease_it_is_finishes(database: Database) -> None:
    await database.write(hook())
    await database.write(updated)
    (slow,) = await database.write(claim("slow"))
    assert await database.write(lambda records: records.deliveries.release(later(59), LEASE)) == 0
    assert await database.write(lambda records: records.deliveries.release(later(60), LEASE)) == 1
    finish = "delivered"
    assert not await database.write(
        lambda records: records.deliveries.finish(slow, attempt(slow), finish, NOW)
    )
    (taken,) = await database.write(claim("quick", later(60)))
    assert taken.delivery.attempts == 2
    assert not await database.write(
        lambda records: records.deliveries.finish(slow, attempt(slow), finish, NOW)
    )
    assert await database.write(
        lambda records: records.deliveries.finish(taken, attempt(taken), finish, later(61))
    )
    (done,) = await deliveries(database)
    assert (done.state, done.finished_at, done.response_status) == ("delivered", later(61), 200)
    made = await database.read(lambda records: records.deliveries.attempts(done.id))
    assert [(each.number, each.status, each.error) for each in made] == [
        (1, None, LOST),
        (2, 200, None),
    ]


@pytest.mark.parametrize("moved", [-3600, 3600])
async def test_a_clock_that_moves_keeps_nothing_back(database: Database, moved: float) -> None:
    """What is new and what a dead worker held goes out at once, not when the clock has caught
    up."""
    await database.write(hook())
    await database.write(updated)
    await database.write(claim("dead"))
    await database.write(updated)
    await database.write(lambda records: records.deliveries.release(later(moved), LEASE))
    assert len(await database.write(claim("alive", later(moved)))) == 2


async def test_what_died_in_this_place_need_not_be_waited_for(database: Database) -> None:
    await database.write(hook())
    for worker in ("a_b:1", "axb:1"):
        await database.write(updated)
        assert len(await database.write(claim(worker))) == 1
    release = lambda records: records.deliveries.release(NOW, LEASE, place="a_b:")  # noqa: E731
    assert await database.write(release) == 1
    assert len(await database.write(claim("a_b:2"))) == 1


async def test_a_claim_may_be_given_back_unused(database: Database) -> None:
    await database.write(hook())
    await database.write(updated)
    (mine,) = await database.write(claim())
    assert await database.write(
        lambda records: records.deliveries.finish(mine, None, "pending", NOW)
    )
    (waiting,) = await deliveries(database)
    assert (waiting.state, waiting.attempts, waiting.failures) == ("pending", 0, 0)


async def test_dead_letters_are_sent_again_one_or_a_range(database: Database) -> None:
    await database.write(hook())
    before = datetime.now(UTC)
    await database.write(lambda records: [updated(records, n) for n in range(3)])
    between = datetime.now(UTC)
    await database.write(updated)
    for each in await database.write(claim()):
        await database.write(
            lambda records, each=each: records.deliveries.finish(
                each, attempt(each, 500), "dead", NOW
            )
        )
    assert (await database.read(lambda records: records.deliveries.counts()))["dead"] == 4
    assert await database.write(claim(now=later(10**6))) == []
    newest = (await deliveries(database, state="dead"))[0]
    again = await database.write(lambda records: records.deliveries.requeue(newest.id))
    assert again is not None
    assert (again.state, again.attempts, again.failures, again.finished_at) == (
        "pending",
        1,
        0,
        None,
    )
    assert (
        await database.write(lambda records: records.deliveries.requeue_between(before, between))
        == 3
    )
    assert len(await database.write(claim())) == 4
    # Under way: not disturbed.
    await database.write(lambda records: records.deliveries.requeue(newest.id))
    assert await database.write(claim("other")) == []
    assert await database.write(lambda records: records.deliveries.requeue("nothing")) is None


async def test_pages_of_deliveries_do_not_overlap(database: Database) -> None:
    await database.write(hook())
    await database.write(lambda records: [updated(records, n) for n in range(7)])
    seen: list[str] = []
    last = None
    while page := await database.read(
        lambda records, last=last: records.deliveries.list(3, before=last)
    ):
        seen += [each.id for each in page]
        last = page[-1]
    assert len(seen) == len(set(seen)) == 7


async def test_disabling_is_told_once_and_undone_by_switching_on(database: Database) -> None:
    webhook = await database.write(hook())
    assert await database.write(lambda records: records.webhooks.failed(webhook.id, NOW)) == NOW
    assert (
        await database.write(lambda records: records.webhooks.failed(webhook.id, later(9))) == NOW
    )
    disable = lambda records: records.webhooks.disable(webhook.id, "failing", later(9))  # noqa: E731
    assert [await database.write(disable), await database.write(disable)] == [True, False]
    off = await database.write(lambda records: records.webhooks.update(webhook.id, active=False))
    assert off is not None
    assert (off.active, off.disabled_reason, off.disabled_at) == (False, "failing", later(9))
    on = await database.write(lambda records: records.webhooks.update(webhook.id, active=True))
    assert on is not None
    assert (on.active, on.disabled_reason, on.failing_since) == (True, None, None)
    await database.write(lambda records: records.webhooks.failed(webhook.id, NOW))
    await database.write(lambda records: records.webhooks.succeeded(webhook.id))
    found = await database.read(lambda records: records.webhooks.get(webhook.id))
    assert found is not None
    assert found.failing_since is None


async def test_a_rotated_secret_has_its_predecessor_beside_it(database: Database) -> None:
    webhook = await database.write(hook())
    await database.write(lambda records: records.webhooks.rotate(webhook.id, "second", later(60)))
    endpoint = await database.read(lambda records: records.webhooks.endpoint(webhook.id))
    assert endpoint is not None
    assert (endpoint.secret, endpoint.previous_secret) == ("second", "sealed")
    assert endpoint.previous_secret_expires_at == later(60)


async def test_deleting_a_webhook_takes_along_its_deliveries(database: Database) -> None:
    webhook = await database.write(hook())
    await database.write(updated)
    (mine,) = await database.write(claim())
    await database.write(
        lambda records: records.deliveries.finish(mine, attempt(mine), "delivered", NOW)
    )
    assert await database.write(lambda records: records.webhooks.delete(webhook.id))
    assert not await database.write(lambda records: records.webhooks.delete(webhook.id))
    for table in (tables.webhook_deliveries, tables.webhook_attempts):
        statement = select(func.count()).select_from(table)
        assert (
            await database.read(
                lambda records, statement=statement: records.deliveries._connection.scalar(
                    statement
                )
            )
            == 0
        )


async def test_old_deliveries_and_those_about_a_forgotten_user_go(database: Database) -> None:
    await database.write(hook("query.created"))

    def asked(records: Records, user: str) -> None:
        records.users.ensure(user)
        conversation = records.conversations.create(user, "key:1", "Help")
        records.events.add(
            "query.created",
            conversation_id=conversation.id,
            user_id=user,
            data={"message_id": "m"},
        )

    for user in ("ada", "ada", "bob"):
        await database.write(lambda records, user=user: asked(records, user))
    done, _, other = await database.write(claim())
    for each in (done, other):
        await database.write(
            lambda records, each=each: records.deliveries.finish(
                each, attempt(each), "delivered", NOW
            )
        )
    await database.write(lambda records: records.events.forget_user("ada"))
    (left,) = await deliveries(database)
    assert left.id == other.delivery.id
    assert await database.write(lambda records: records.deliveries.prune(NOW)) == 0
    assert await database.write(lambda records: records.deliveries.prune(later(1))) == 1
    assert await deliveries(database) == []


async def test_the_tables_refuse_half_a_lease_and_a_silent_end(database: Database) -> None:
    await database.write(hook())
    await database.write(updated)
    table = tables.webhook_deliveries
    for values in (
        {"lease_owner": "w"},
        {"state": "sending"},
        {"state": "dead"},
        {"failures": 1},
        {"state": "forgotten"},
    ):
        with pytest.raises(Conflict):
            await database.write(
                lambda records, values=values: records.deliveries._connection.execute(
                    table.update().values(values)
                )
            )


async def test_workers_are_known_by_their_latest_sign(database: Database) -> None:
    latest = lambda records: records.workers.latest()  # noqa: E731
    assert await database.read(latest) is None
    for worker_id, seen in (("a", NOW), ("b", later(5)), ("a", later(9))):
        worker = Worker(worker_id, "host", 7, NOW, seen)
        await database.write(lambda records, worker=worker: records.workers.beat(worker))
    assert (await database.read(latest)) == Worker("a", "host", 7, NOW, later(9))
    await database.write(lambda records: records.workers.leave("a"))
    assert (await database.read(latest)).id == "b"
    await database.write(lambda records: records.workers.forget(later(6)))
    assert await database.read(latest) is None


async def test_a_switch_of_models_is_seen_once(database: Database) -> None:
    async def serve(model: str, sha256: str | None = None) -> ServedModel | None:
        served = ServedModel(model, sha256, NOW)
        return await database.write(lambda records: records.served_model.replace(served))

    assert await serve("small") is None
    assert await serve("small") is None
    before = await serve("large")
    assert before is not None
    assert before.model == "small"
    assert await serve("large") is None

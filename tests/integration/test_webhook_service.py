"""Keeping webhooks: what is stored, shown and written down, on both databases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import trustme

from appliance.domain.events import EVENTS, TEST_EVENT
from appliance.domain.policy import WEBHOOKS_MAX
from appliance.domain.receivers import AllowList, ReceiverGuard
from appliance.domain.webhook_secrets import WebhookSecrets
from appliance.errors import (
    ApplianceError,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    ReceiverRefused,
)
from appliance.services.access import OPERATOR, Principal
from appliance.services.deliveries import Deliveries, ShownDelivery
from appliance.services.webhooks import Webhooks
from appliance.storage.database import Database, Records
from appliance.storage.records import Attempt, DeliveryState, Webhook
from tests.rivals import halted, met

pytestmark = pytest.mark.anyio

SECRETS = WebhookSecrets(b"k" * 32)
URL = "https://hooks.corp.lan/desk?token=geheim"
ELSEWHERE = "https://10.9.9.9/"
EVENTS_WANTED = ("query.created", "kb.updated")


class Names:
    """A name service that a test moves."""

    def __init__(self) -> None:
        self.addresses: Sequence[str] = ["10.2.3.4"]

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        return self.addresses


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def guard(names: Names) -> ReceiverGuard:
    return ReceiverGuard(AllowList.parse(["10.2.0.0/16"]), names)


@pytest.fixture
def webhooks(database: Database, guard: ReceiverGuard) -> Webhooks:
    return Webhooks(database, guard, SECRETS)


@pytest.fixture
def deliveries(database: Database, guard: ReceiverGuard) -> Deliveries:
    return Deliveries(database, guard)


async def create(webhooks: Webhooks, **changes: Any) -> Webhook:
    return await webhooks.create(OPERATOR, **{"url": URL, "events": EVENTS_WANTED} | changes)


async def replace(webhooks: Webhooks, webhook: Webhook, **changes: Any) -> Webhook:
    present = {
        "url": webhook.url,
        "events": webhook.events,
        "description": webhook.description,
        "ca_pem": webhook.ca_pem,
        "active": webhook.active,
    }
    return await webhooks.update(OPERATOR, webhook.id, **present | changes)


async def audit(database: Database) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Actor, action, target and details, oldest first."""
    entries = await database.read(lambda records: records.audit.list(1000))
    return [(e.actor, e.action, e.target, dict(e.details)) for e in reversed(entries)]


async def deliver(database: Database, delivery: ShownDelivery, status: int | None = 200) -> None:
    """What a worker does with it: one attempt, and no other after it."""
    now = datetime.now(UTC)

    def work(records: Records) -> None:
        for claimed in records.deliveries.claim("worker", now, 60, 100):
            if claimed.delivery.id != delivery.id:
                assert records.deliveries.finish(claimed, None, "pending", now)
                continue
            attempt = Attempt(
                number=claimed.delivery.attempts,
                started_at=now,
                duration_ms=12,
                status=status,
                error=None if status == 200 else "status 500",
                response="said",
            )
            state: DeliveryState = "delivered" if status == 200 else "dead"
            assert records.deliveries.finish(claimed, attempt, state, now)

    await database.write(work)


# --- webhooks -------------------------------------------------------------------------------------


async def test_the_secret_is_shown_once_and_is_not_in_the_database(
    webhooks: Webhooks, database: Database
) -> None:
    made = await webhooks.create(OPERATOR, URL, EVENTS_WANTED, description="  a   desk ")
    endpoint = await database.read(lambda records: records.webhooks.endpoint(made.id))
    assert endpoint is not None
    assert SECRETS.shown(endpoint.secret) == made.secret
    assert endpoint.secret not in made.secret
    assert made.secret.removeprefix("whsec_") not in repr(endpoint)
    assert "secret" not in repr(await webhooks.get(OPERATOR, made.id)).replace(
        "previous_secret_expires_at", ""
    )
    assert (made.url, tuple(made.events), made.active) == (URL, EVENTS_WANTED, True)
    assert [each.id for each in await webhooks.list(OPERATOR)] == [made.id]


async def test_events_are_kept_once_each_in_their_order(webhooks: Webhooks) -> None:
    made = await create(webhooks, events=[*reversed(EVENTS), *EVENTS])
    assert tuple(made.events) == EVENTS


async def test_what_cannot_be_a_webhook_is_not_stored(
    webhooks: Webhooks, database: Database
) -> None:
    ca = trustme.CA()
    key = ca.issue_cert("x").private_key_pem.bytes().decode()
    for wrong, error in [
        ({"events": []}, InvalidInput),
        ({"events": ["query.created", "nothing.happened"]}, InvalidInput),
        ({"events": [TEST_EVENT]}, InvalidInput),
        ({"url": ELSEWHERE}, ReceiverRefused),
        ({"url": "https://169.254.169.254/"}, ReceiverRefused),
        ({"url": "https://user@10.2.3.4/"}, ReceiverRefused),
        ({"url": "https://10.2.3.4:8443/"}, ReceiverRefused),
        ({"url": "nonsense"}, ReceiverRefused),
        ({"ca_pem": "nonsense"}, ReceiverRefused),
        ({"ca_pem": ""}, ReceiverRefused),
        ({"ca_pem": ca.cert_pem.bytes().decode() + key}, ReceiverRefused),
        ({"ca_pem": "x" * 70_000}, InvalidInput),
        ({"description": "x" * 501}, InvalidInput),
    ]:
        with pytest.raises(error):
            await create(webhooks, **wrong)
        made = await create(webhooks)
        with pytest.raises(error):
            await replace(webhooks, made, **wrong)
        await webhooks.delete(OPERATOR, made.id)
    assert await webhooks.list(OPERATOR) == []


async def test_a_name_that_moved_is_refused_at_every_save_and_test(
    webhooks: Webhooks, deliveries: Deliveries, names: Names
) -> None:
    made = await create(webhooks)
    for addresses in (["169.254.169.254"], ["10.2.3.4", "127.0.0.1"], ["10.9.9.9"], []):
        names.addresses = addresses
        for refused in (
            create(webhooks),
            replace(webhooks, made, description="new"),
            deliveries.test(OPERATOR, made.id),
        ):
            with pytest.raises(ReceiverRefused):
                await refused
    # Switching it off is always possible; on again only where it may go.
    off = await replace(webhooks, made, active=False)
    assert (off.active, off.disabled_reason) == (False, "operator")
    with pytest.raises(ReceiverRefused):
        await replace(webhooks, off, active=True)
    with pytest.raises(ReceiverRefused):
        await replace(webhooks, off, url=ELSEWHERE)
    names.addresses = ["10.2.9.9"]
    on = await replace(webhooks, off, active=True)
    assert (on.active, on.disabled_reason, on.failing_since) == (True, None, None)


async def test_a_private_authority_is_kept_and_dropped(webhooks: Webhooks) -> None:
    pem = trustme.CA().cert_pem.bytes().decode()
    made = await create(webhooks, ca_pem=pem)
    assert (await webhooks.get(OPERATOR, made.id)).ca_pem == pem
    assert (await replace(webhooks, made, ca_pem=None)).ca_pem is None


async def test_there_is_room_for_so_many(webhooks: Webhooks, database: Database) -> None:
    def fill(records: Records) -> None:
        for _ in range(WEBHOOKS_MAX - 1):
            records.webhooks.add(URL, EVENTS_WANTED, SECRETS.new())

    await database.write(fill)
    last = await create(webhooks)
    with pytest.raises(Conflict):
        await create(webhooks)
    await webhooks.delete(OPERATOR, last.id)
    await create(webhooks)


async def test_rotation_keeps_the_secret_before_for_its_overlap(
    webhooks: Webhooks, deliveries: Deliveries, database: Database
) -> None:
    made = await webhooks.create(OPERATOR, URL, EVENTS_WANTED)
    began = datetime.now(UTC)
    rotated = await webhooks.rotate(OPERATOR, made.id, overlap_hours=2)
    assert rotated.secret != made.secret
    endpoint = await database.read(lambda records: records.webhooks.endpoint(made.id))
    assert endpoint is not None
    assert endpoint.previous_secret is not None
    assert SECRETS.shown(endpoint.secret) == rotated.secret
    assert SECRETS.shown(endpoint.previous_secret) == made.secret
    assert endpoint.previous_secret_expires_at is not None
    left = endpoint.previous_secret_expires_at - began
    assert timedelta(hours=2) <= left < timedelta(hours=2, minutes=5)
    with pytest.raises(Conflict, match="still live"):
        await webhooks.rotate(OPERATOR, made.id)
    leaked = await webhooks.rotate(OPERATOR, made.id, overlap_hours=0)
    assert leaked.previous_secret_expires_at is not None
    assert leaked.previous_secret_expires_at <= datetime.now(UTC)
    for hours in (-1, 169):
        with pytest.raises(InvalidInput):
            await webhooks.rotate(OPERATOR, made.id, overlap_hours=hours)


async def test_of_two_rotations_at_once_one_is_refused(
    webhooks: Webhooks, guard: ReceiverGuard, database: Database, database_url: str
) -> None:
    """Else the secret that the receiver surely has would be gone."""
    made = await create(webhooks)

    def rotate(rival: Database) -> Awaitable[Any]:
        return Webhooks(rival, guard, SECRETS).rotate(OPERATOR, made.id)

    async with halted(database_url, rotate) as first:
        second = asyncio.create_task(webhooks.rotate(OPERATOR, made.id))
        await met(database_url, second)
    assert (await first).secret
    with pytest.raises(Conflict, match="still live"):
        await second


# --- deliveries -----------------------------------------------------------------------------------


async def test_the_test_button_puts_a_delivery_where_every_other_is(
    webhooks: Webhooks, deliveries: Deliveries, database: Database
) -> None:
    made = await create(webhooks)
    other = await create(webhooks)
    sent = await deliveries.test(OPERATOR, made.id)
    assert (sent.state, sent.event_type, sent.attempts) == ("pending", TEST_EVENT, [])
    assert sent.payload["id"] == sent.event_id
    assert sent.payload["type"] == TEST_EVENT
    assert sent.payload["data"] == {"webhook_id": made.id}
    assert await deliveries.list(OPERATOR, other.id, limit=10) == []
    await deliver(database, sent)
    seen = await deliveries.get(OPERATOR, sent.id)
    assert (seen.state, seen.response_status) == ("delivered", 200)
    (attempt,) = seen.attempts
    assert (attempt.number, attempt.duration_ms, attempt.response) == (1, 12, "said")
    assert await deliveries.list(OPERATOR, made.id, limit=10) == [seen]


async def test_pages_of_deliveries_are_whole_and_in_order(
    webhooks: Webhooks, deliveries: Deliveries, database: Database
) -> None:
    made, other = await create(webhooks), await create(webhooks)
    sent = [await deliveries.test(OPERATOR, made.id) for _ in range(7)]
    strange = await deliveries.test(OPERATOR, other.id)
    await deliver(database, sent[2])
    found: list[str] = []
    while page := await deliveries.list(
        OPERATOR, made.id, limit=3, after=found[-1] if found else None
    ):
        assert len(page) <= 3
        found += [each.id for each in page]
    assert found == [each.id for each in reversed(sent)]
    for state, wanted in [("delivered", [sent[2].id]), ("dead", [])]:
        page = await deliveries.list(OPERATOR, made.id, limit=100, state=state)
        assert [each.id for each in page] == wanted
    for after in (strange.id, "nothing"):
        with pytest.raises(NotFound):
            await deliveries.list(OPERATOR, made.id, limit=3, after=after)


async def test_one_is_sent_again_with_its_id_and_its_past(
    webhooks: Webhooks, deliveries: Deliveries, database: Database
) -> None:
    made = await create(webhooks)
    sent = await deliveries.test(OPERATOR, made.id)
    await deliver(database, sent, 500)
    assert (await deliveries.get(OPERATOR, sent.id)).state == "dead"
    again = await deliveries.redeliver(OPERATOR, sent.id)
    assert (again.state, again.event_id, len(again.attempts)) == ("pending", sent.event_id, 1)
    await deliver(database, again)
    done = await deliveries.get(OPERATOR, sent.id)
    assert done.state == "delivered"
    assert [attempt.status for attempt in done.attempts] == [500, 200]


async def test_a_range_of_time_is_sent_again(
    webhooks: Webhooks, deliveries: Deliveries, database: Database
) -> None:
    made, other = await create(webhooks), await create(webhooks)
    sent = [await deliveries.test(OPERATOR, made.id) for _ in range(4)]
    await deliveries.test(OPERATOR, other.id)
    for number, status in [(0, 500), (1, 200), (2, 500)]:
        await deliver(database, sent[number], status)

    async def again(**given: Any) -> int:
        return await deliveries.redeliver_between(OPERATOR, made.id, **given)

    begin, late = sent[0].created_at, sent[2].created_at
    hour = timedelta(hours=1)
    assert await again(since=begin - hour, until=begin) == 0
    assert await again(since=begin, until=late) == 1
    assert await again(since=begin - hour) == 1
    assert await again(since=begin - hour, states=["delivered", "dead"]) == 1
    states = {each.state for each in await deliveries.list(OPERATOR, made.id, limit=10)}
    assert states == {"pending"}
    for wrong in (
        {"since": begin, "until": begin},
        {"since": datetime.now(UTC) + hour},
        {"since": datetime(1, 1, 1, tzinfo=timezone(hour))},
        {"since": begin, "until": datetime(9999, 12, 31, 23, 59, tzinfo=timezone(-hour))},
        {"since": datetime(2026, 11, 24)},  # noqa: DTZ001 - what is refused
        {"since": begin, "states": []},
        {"since": begin, "states": ["pending"]},
    ):
        with pytest.raises(InvalidInput):
            await again(**wrong)


async def test_nothing_is_queued_for_a_webhook_that_is_switched_off_but_a_test(
    webhooks: Webhooks, deliveries: Deliveries, database: Database
) -> None:
    made = await create(webhooks)
    sent = await deliveries.test(OPERATOR, made.id)
    await deliver(database, sent, 500)
    await replace(webhooks, made, active=False)
    with pytest.raises(Conflict):
        await deliveries.redeliver(OPERATOR, sent.id)
    with pytest.raises(Conflict):
        await deliveries.redeliver_between(OPERATOR, made.id, since=sent.created_at)
    assert (await deliveries.test(OPERATOR, made.id)).state == "pending"


# --- who, and what is written down ----------------------------------------------------------------


def every_act(
    webhooks: Webhooks,
    deliveries: Deliveries,
    who: Principal,
    webhook_id: str,
    delivery_id: str,
) -> list[Callable[[], Awaitable[Any]]]:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        lambda: webhooks.create(who, URL, EVENTS_WANTED),
        lambda: webhooks.list(who),
        lambda: webhooks.get(who, webhook_id),
        lambda: webhooks.update(
            who,
            webhook_id,
            url=URL,
            events=EVENTS_WANTED,
            description=None,
            ca_pem=None,
            active=True,
        ),
        lambda: webhooks.rotate(who, webhook_id),
        lambda: deliveries.test(who, webhook_id),
        lambda: deliveries.list(who, webhook_id, limit=1),
        lambda: deliveries.get(who, delivery_id),
        lambda: deliveries.redeliver(who, delivery_id),
        lambda: deliveries.redeliver_between(who, webhook_id, since=since),
        lambda: webhooks.delete(who, webhook_id),
    ]


async def test_administrators_only(
    webhooks: Webhooks, deliveries: Deliveries, database: Database
) -> None:
    made = await create(webhooks)
    sent = await deliveries.test(OPERATOR, made.id)
    before = await audit(database)
    for role in ("agent", "customer"):
        for act in every_act(
            webhooks, deliveries, Principal(role, f"key:{role}"), made.id, sent.id
        ):
            with pytest.raises(Forbidden):
                await act()
    assert await audit(database) == before


async def test_what_is_not_there(webhooks: Webhooks, deliveries: Deliveries) -> None:
    for act in every_act(webhooks, deliveries, OPERATOR, "nothing", "nothing")[2:]:
        with pytest.raises(NotFound):
            await act()


async def test_every_act_is_written_down_without_secrets(
    webhooks: Webhooks, deliveries: Deliveries, database: Database
) -> None:
    who = Principal("admin", "key:ada")
    made = await create(webhooks)
    sent = await deliveries.test(OPERATOR, made.id)
    before = len(await audit(database))
    for act in every_act(webhooks, deliveries, who, made.id, sent.id):
        await act()
    entries = (await audit(database))[before:]
    assert [action for _, action, _, _ in entries] == [
        "webhook.create",
        "webhook.update",
        "webhook.rotate_secret",
        "webhook.test",
        "webhook.redeliver",
        "webhook.redeliver",
        "webhook.delete",
    ]
    assert {actor for actor, *_ in entries} == {"key:ada"}
    assert {target for _, _, target, _ in entries[1:]} == {made.id}
    told = json.dumps([details for *_, details in entries])
    assert "hooks.corp.lan" in told
    assert "geheim" not in told
    assert "whsec_" not in told


async def test_what_failed_is_not_written_down(
    webhooks: Webhooks, deliveries: Deliveries, database: Database
) -> None:
    made = await create(webhooks)
    before = await audit(database)
    for act in (
        lambda: create(webhooks, url=ELSEWHERE),
        lambda: replace(webhooks, made, url=ELSEWHERE),
        lambda: webhooks.delete(OPERATOR, "nothing"),
        lambda: webhooks.rotate(OPERATOR, "nothing"),
        lambda: deliveries.redeliver(OPERATOR, "nothing"),
    ):
        with pytest.raises(ApplianceError):
            await act()
    assert await audit(database) == before

"""Events on their way to webhooks, and what became of each: for administrators."""

from __future__ import annotations

import builtins
import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from appliance.domain.events import TEST_EVENT, body
from appliance.domain.receivers import ReceiverGuard
from appliance.errors import Conflict, InvalidInput, NotFound
from appliance.services.access import Principal
from appliance.services.webhooks import found_webhook
from appliance.storage.database import Database, Records
from appliance.storage.records import Attempt, Delivery, DeliveryState, Webhook

PAGE_MAX: Final = 100

REDELIVERABLE: Final[tuple[DeliveryState, ...]] = ("dead", "delivered")
"""Pending ones are on their way as it is."""


@dataclass(frozen=True, slots=True)
class ShownDelivery:
    """One event on its way to one webhook. ``payload`` is the body that is sent, ``event_id`` its
    webhook-id; ``attempts`` are all there were, in order."""

    id: str
    webhook_id: str
    event_id: str
    event_type: str
    state: DeliveryState
    created_at: datetime
    finished_at: datetime | None
    next_attempt_at: datetime | None
    response_status: int | None
    last_error: str | None
    payload: Mapping[str, Any]
    attempts: Sequence[Attempt]


class Deliveries:
    """Shows deliveries, makes one to try a webhook, and sends them again; what is sent is written
    to the audit log in its own transaction.

    :raises Forbidden: from every method, where the principal is no administrator.
    """

    def __init__(self, database: Database, guard: ReceiverGuard) -> None:
        self._database = database
        self._guard = guard

    async def test(self, principal: Principal, webhook_id: str) -> ShownDelivery:
        """Queue a delivery of ``webhook.test``, which goes the way of every other, also to one that
        is switched off.

        :raises NotFound: there is no such webhook.
        :raises ReceiverRefused: it may not be sent to any more.
        """
        principal.require("admin")
        webhook = await self._database.read(lambda records: found_webhook(records, webhook_id))
        await self._guard.admit(webhook.url)

        def work(records: Records) -> ShownDelivery:
            found_webhook(records, webhook_id)
            event_id = uuid.uuid4().hex
            text = body(event_id, TEST_EVENT, datetime.now(UTC), {"webhook_id": webhook_id})
            (delivery_id,) = records.deliveries.add([webhook_id], event_id, TEST_EVENT, text)
            records.audit.add(
                principal.owner, "webhook.test", webhook_id, {"delivery": delivery_id}
            )
            return _shown(records, _found_delivery(records, delivery_id))

        return await self._database.write(work)

    async def list(
        self,
        principal: Principal,
        webhook_id: str,
        *,
        limit: int,
        state: DeliveryState | None = None,
        after: str | None = None,
    ) -> builtins.list[ShownDelivery]:
        """A webhook's deliveries, newest first, from behind the one ``after``.

        :raises NotFound: there is no such webhook, or no such delivery of it.
        """
        principal.require("admin")
        limit = max(1, min(limit, PAGE_MAX))

        def work(records: Records) -> builtins.list[ShownDelivery]:
            found_webhook(records, webhook_id)
            last = None if after is None else _found_delivery(records, after)
            if last is not None and last.webhook_id != webhook_id:
                raise _missing_delivery()
            page = records.deliveries.list(limit, webhook_id=webhook_id, state=state, before=last)
            return [_shown(records, each) for each in page]

        return await self._database.read(work)

    async def get(self, principal: Principal, delivery_id: str) -> ShownDelivery:
        """:raises NotFound: there is no such delivery."""
        principal.require("admin")
        return await self._database.read(
            lambda records: _shown(records, _found_delivery(records, delivery_id))
        )

    async def redeliver(self, principal: Principal, delivery_id: str) -> ShownDelivery:
        """Send one again, with the same event id and all its attempts before it.

        :raises NotFound: there is no such delivery.
        :raises Conflict: its webhook is switched off.
        """
        principal.require("admin")

        def work(records: Records) -> ShownDelivery:
            webhook_id = _found_delivery(records, delivery_id).webhook_id
            _require_active(found_webhook(records, webhook_id))
            again = records.deliveries.requeue(delivery_id)
            if again is None:
                raise _missing_delivery()
            details = {"delivery": delivery_id}
            records.audit.add(principal.owner, "webhook.redeliver", webhook_id, details)
            return _shown(records, again)

        return await self._database.write(work)

    async def redeliver_between(
        self,
        principal: Principal,
        webhook_id: str,
        *,
        since: datetime,
        until: datetime | None = None,
        states: Collection[DeliveryState] = REDELIVERABLE[:1],
    ) -> int:
        """Send again what died, or what ``states`` say, of what was made from ``since`` on and
        before ``until``, by default now; how many.

        :raises NotFound: there is no such webhook.
        :raises Conflict: it is switched off.
        :raises InvalidInput: the range is empty, one of its times cannot be told in UTC, or no
            state is given that can be sent again.
        """
        principal.require("admin")
        since, until = _moment(since), _moment(until or datetime.now(UTC))
        if since >= until:
            raise InvalidInput("The range of time is empty.")
        if not states or not set(states) <= set(REDELIVERABLE):
            raise InvalidInput(f"States to send again are {' and '.join(REDELIVERABLE)}.")

        def work(records: Records) -> int:
            _require_active(found_webhook(records, webhook_id))
            number = records.deliveries.requeue_between(
                since, until, webhook_id=webhook_id, states=states
            )
            details = {
                "since": since.isoformat(),
                "until": until.isoformat(),
                "states": sorted(states),
                "requeued": number,
            }
            records.audit.add(principal.owner, "webhook.redeliver", webhook_id, details)
            return number

        return await self._database.write(work)


def _moment(given: datetime) -> datetime:
    try:
        if given.utcoffset() is not None:
            return given.astimezone(UTC)
    except OverflowError as error:
        raise InvalidInput("The time is before the first or behind the last year.") from error
    raise InvalidInput("A time needs its offset from UTC, such as 2026-11-24T12:00:00Z.")


def _shown(records: Records, delivery: Delivery) -> ShownDelivery:
    return ShownDelivery(
        id=delivery.id,
        webhook_id=delivery.webhook_id,
        event_id=delivery.event_id,
        event_type=delivery.event_type,
        state=delivery.state,
        created_at=delivery.created_at,
        finished_at=delivery.finished_at,
        next_attempt_at=delivery.next_attempt_at,
        response_status=delivery.response_status,
        last_error=delivery.last_error,
        payload=json.loads(delivery.body),
        attempts=records.deliveries.attempts(delivery.id),
    )


def _found_delivery(records: Records, delivery_id: str) -> Delivery:
    delivery = records.deliveries.get(delivery_id)
    if delivery is None:
        raise _missing_delivery()
    return delivery


def _require_active(webhook: Webhook) -> None:
    if not webhook.active:
        raise Conflict(
            f"The webhook is switched off ({webhook.disabled_reason}).", hint="Switch it on first."
        )


def _missing_delivery() -> NotFound:
    return NotFound("There is no such delivery.")

"""Receivers of events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Unpack

from sqlalchemy import delete, func, insert, literal, select, update

from appliance.storage.records import DisabledReason, Endpoint, Webhook, WebhookChanges
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import webhooks
from appliance.storage.types import Flag, UtcDateTime, new_id, utc_now

_COLUMNS = columns_for(Webhook, webhooks)
_ENDPOINT = columns_for(Endpoint, webhooks)
_c = webhooks.c

TRUE = literal(True, Flag())


class WebhookRepository(Repository):
    """Webhooks. Secrets go in as the caller sealed them and come out in an ``Endpoint`` only."""

    def add(
        self,
        url: str,
        events: Sequence[str],
        secret: str,
        *,
        description: str | None = None,
        ca_pem: str | None = None,
    ) -> Webhook:
        now = utc_now()
        statement = insert(webhooks).values(
            id=new_id(),
            url=url,
            events=list(events),
            description=description,
            ca_pem=ca_pem,
            secret=secret,
            active=True,
            created_at=now,
            updated_at=now,
        )
        return self._one(Webhook, statement.returning(*_COLUMNS))

    def get(self, webhook_id: str, *, lock: bool = False) -> Webhook | None:
        statement = select(*_COLUMNS).where(_c.id == webhook_id)
        return self._first(Webhook, statement.with_for_update() if lock else statement)

    def list(self) -> Sequence[Webhook]:
        """All of them, oldest first."""
        return self._all(Webhook, select(*_COLUMNS).order_by(_c.created_at, _c.id))

    def count(self) -> int:
        return self._connection.scalar(select(func.count()).select_from(webhooks)) or 0

    def endpoint(self, webhook_id: str) -> Endpoint | None:
        """What sending needs, sealed secrets included."""
        return self._first(Endpoint, select(*_ENDPOINT).where(_c.id == webhook_id))

    def update(self, webhook_id: str, **changes: Unpack[WebhookChanges]) -> Webhook | None:
        """Change fields. Switching ``active`` on begins anew: with no reason and no failures.

        Deliveries to a webhook that is switched off die when their time comes.
        """
        values: dict[str, object] = {**changes, "updated_at": utc_now()}
        if "events" in changes:
            values["events"] = [*changes["events"]]
        if changes.get("active") is True:
            values |= {"disabled_reason": None, "disabled_at": None, "failing_since": None}
        elif changes.get("active") is False:
            # What the appliance found stays the reason.
            values["disabled_reason"] = func.coalesce(_c.disabled_reason, "operator")
            values["disabled_at"] = func.coalesce(_c.disabled_at, literal(utc_now(), UtcDateTime()))
        statement = update(webhooks).where(_c.id == webhook_id).values(values)
        return self._first(Webhook, statement.returning(*_COLUMNS))

    def rotate(self, webhook_id: str, secret: str, previous_expires_at: datetime) -> Webhook | None:
        """Take a new secret; the present one stays live beside it until then."""
        statement = (
            update(webhooks)
            .where(_c.id == webhook_id)
            .values(
                secret=secret,
                previous_secret=_c.secret,
                previous_secret_expires_at=previous_expires_at,
                updated_at=utc_now(),
            )
        )
        return self._first(Webhook, statement.returning(*_COLUMNS))

    def delete(self, webhook_id: str) -> bool:
        """Remove it with its deliveries; False when there is none."""
        return self._connection.execute(delete(webhooks).where(_c.id == webhook_id)).rowcount > 0

    def disable(self, webhook_id: str, reason: DisabledReason, now: datetime) -> bool:
        """Stop delivering to it; False when it was switched off already or is gone."""
        statement = (
            update(webhooks)
            .where(_c.id == webhook_id, _c.active == TRUE)
            .values(active=False, disabled_reason=reason, disabled_at=now, updated_at=now)
        )
        return self._connection.execute(statement).rowcount > 0

    def succeeded(self, webhook_id: str) -> None:
        """It took a delivery."""
        statement = update(webhooks).where(_c.id == webhook_id, _c.failing_since.is_not(None))
        self._connection.execute(statement.values(failing_since=None))

    def failed(self, webhook_id: str, now: datetime) -> datetime:
        """It did not; since when it has been so."""
        statement = (
            update(webhooks)
            .where(_c.id == webhook_id, _c.failing_since.is_(None))
            .values(failing_since=now)
        )
        self._connection.execute(statement)
        return self._connection.scalar(select(_c.failing_since).where(_c.id == webhook_id)) or now

"""What happened: appended for later analysis and never changed, and put into the outbox of every
webhook that asked to hear of it, in the same transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, literal, select, update

from appliance.domain.events import EVENTS, body
from appliance.storage.deliveries import DeliveryRepository
from appliance.storage.repository import Repository
from appliance.storage.tables import analytics_events, webhooks
from appliance.storage.types import Flag, new_id, utc_now


class EventRepository(Repository):
    """Events outlive their conversation; then they no longer say which it was."""

    def __init__(self, connection: Connection, deliveries: DeliveryRepository) -> None:
        super().__init__(connection)
        self._deliveries = deliveries

    def add(
        self,
        event_type: str,
        *,
        conversation_id: str | None = None,
        user_id: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> str:
        """Write an event down; its id, which is what receivers know it by.

        :param data: what it says besides; of a published type all of its fields in
            ``domain.events``, any other set of names is a TypeError.
        """
        event_id, now = new_id(), utc_now()
        self._connection.execute(
            insert(analytics_events).values(
                id=event_id,
                type=event_type,
                conversation_id=conversation_id,
                user_id=user_id,
                data=dict(data or {}),
                created_at=now,
            )
        )
        if event_type in EVENTS:
            about = {"conversation_id": conversation_id, "user_id": user_id}
            told = {name: value for name, value in about.items() if value is not None}
            # Built also where nobody subscribed: a wrong event must not wait for its first reader.
            text = body(event_id, event_type, now, {**told, **(data or {})})
            self._deliveries.add(
                self._subscribers(event_type), event_id, event_type, text, user_id=user_id
            )
        return event_id

    def _subscribers(self, event_type: str) -> list[str]:
        c = webhooks.c
        active = (
            select(c.id, c.events)
            .where(c.active == literal(True, Flag()))
            .order_by(c.created_at, c.id)
            # Held until the commit on PostgreSQL: one that is deleted meanwhile would break the
            # outbox's foreign key, and with it the customer's answer. SQLite has one writer.
            .with_for_update(read=True, key_share=True)
        )
        return [row.id for row in self._connection.execute(active) if event_type in row.events]

    def forget_user(self, user_id: str) -> None:
        """Events stay, without saying who it was."""
        theirs = analytics_events.c.user_id == user_id
        self._connection.execute(update(analytics_events).where(theirs).values(user_id=None))
        self._deliveries.forget_user(user_id)

"""What happened, appended for later analysis and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, update

from appliance.storage.repository import Repository
from appliance.storage.tables import analytics_events
from appliance.storage.types import new_id, utc_now


class EventRepository(Repository):
    """Events outlive their conversation; then they no longer say which it was."""

    def add(
        self,
        event_type: str,
        *,
        conversation_id: str | None = None,
        user_id: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self._connection.execute(
            insert(analytics_events).values(
                id=new_id(),
                type=event_type,
                conversation_id=conversation_id,
                user_id=user_id,
                data=dict(data or {}),
                created_at=utc_now(),
            )
        )

    def forget_user(self, user_id: str) -> None:
        """Events stay, without saying who it was."""
        theirs = analytics_events.c.user_id == user_id
        self._connection.execute(update(analytics_events).where(theirs).values(user_id=None))

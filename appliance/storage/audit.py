"""What administrators and the appliance itself did that somebody may ask about one day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, insert, literal, select, tuple_

from appliance.errors import NotFound
from appliance.storage.records import AuditEntry
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import audit_log
from appliance.storage.types import new_id, utc_now

_COLUMNS = columns_for(AuditEntry, audit_log)
_c = audit_log.c
_place = tuple_(_c.created_at, _c.id)


class AuditRepository(Repository):
    """Entries are added and read. The database refuses to change or delete one."""

    def add(
        self, actor: str, action: str, target: str, details: Mapping[str, Any] | None = None
    ) -> AuditEntry:
        """``actor`` is a key's owner, ``operator`` or ``appliance``; ``details`` holds counts and
        names, never a customer's words or a secret."""
        statement = insert(audit_log).values(
            id=new_id(),
            created_at=utc_now(),
            actor=actor,
            action=action,
            target=target,
            details=dict(details or {}),
        )
        return self._one(AuditEntry, statement.returning(*_COLUMNS))

    def list(
        self,
        limit: int,
        *,
        action: str | None = None,
        actor: str | None = None,
        before: str | None = None,
    ) -> Sequence[AuditEntry]:
        """The latest entries, newest first; ``before`` is the id that the last page ended with."""
        statement = select(*_COLUMNS).order_by(_c.created_at.desc(), _c.id.desc()).limit(limit)
        if action is not None:
            statement = statement.where(_c.action == action)
        if actor is not None:
            statement = statement.where(_c.actor == actor)
        if before is not None:
            statement = statement.where(_place < self._place(before))
        return self._all(AuditEntry, statement)

    def has(self, entry_id: str) -> bool:
        """Whether the log holds this entry."""
        return self._connection.scalar(select(_c.id).where(_c.id == entry_id)) is not None

    def following(
        self, after: str | None, limit: int, *, since: datetime | None = None
    ) -> Sequence[AuditEntry]:
        """Entries oldest first, from behind the id ``after``, none older than ``since``."""
        statement = select(*_COLUMNS).order_by(_c.created_at, _c.id).limit(limit)
        if since is not None:
            statement = statement.where(_c.created_at >= since)
        if after is not None:
            statement = statement.where(_place > self._place(after))
        return self._all(AuditEntry, statement)

    def _place(self, entry_id: str) -> ColumnElement[Any]:
        """Where an entry stands in the order of the log.

        :raises NotFound: there is no such entry.
        """
        statement = select(_c.created_at, _c.id).where(_c.id == entry_id)
        row = self._connection.execute(statement).first()
        if row is None:
            raise NotFound("The audit log has no such entry.")
        return tuple_(literal(row.created_at, _c.created_at.type), literal(row.id))

"""What administrators and the appliance itself did that somebody may ask about one day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select

from appliance.storage.records import AuditEntry
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import audit_log
from appliance.storage.types import new_id, utc_now

_COLUMNS = columns_for(AuditEntry, audit_log)
_c = audit_log.c


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

    def list(self, limit: int, *, action: str | None = None) -> Sequence[AuditEntry]:
        """The latest entries, newest first."""
        statement = select(*_COLUMNS).order_by(_c.created_at.desc(), _c.id.desc()).limit(limit)
        if action is not None:
            statement = statement.where(_c.action == action)
        return self._all(AuditEntry, statement)

"""The audit log, read and exported by administrators; and acts noted that change no record."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from appliance.services.access import Principal
from appliance.storage.database import Database, Records
from appliance.storage.records import AuditEntry

PAGE_MAX: Final = 200
BATCH: Final = 500
"""Entries read at once by an export."""


class AuditLog:
    """What was done here, by whom. Entries are never changed: the database refuses."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        by: Principal,
        *,
        limit: int,
        before: str | None = None,
        action: str | None = None,
        actor: str | None = None,
    ) -> Sequence[AuditEntry]:
        """The latest entries, newest first, from behind the id ``before``.

        :raises Forbidden: ``by`` is no administrator.
        :raises NotFound: ``before`` is no entry.
        """
        by.require("admin")
        limit = max(1, min(limit, PAGE_MAX))
        return await self._database.read(
            lambda records: records.audit.list(limit, action=action, actor=actor, before=before)
        )

    async def export(
        self, by: Principal, *, since: datetime | None = None
    ) -> AsyncIterator[AuditEntry]:
        """All entries, oldest first, a batch at a time.

        :raises Forbidden: ``by`` is no administrator.
        """
        by.require("admin")
        after: str | None = None
        while True:
            batch = await self._database.read(partial(_following, after, since))
            for entry in batch:
                yield entry
            if len(batch) < BATCH:
                return
            after = batch[-1].id

    async def note(
        self, actor: str, action: str, target: str, details: Mapping[str, Any] | None = None
    ) -> None:
        """Write down an act that changes files and no record."""
        await self._database.write(
            lambda records: records.audit.add(actor, action, target, details)
        )


def _following(after: str | None, since: datetime | None, records: Records) -> Sequence[AuditEntry]:
    return records.audit.following(after, BATCH, since=since)

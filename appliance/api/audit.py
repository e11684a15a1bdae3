"""The audit log: for admins."""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, get
from litestar.params import Parameter
from msgspec import Struct

from appliance.api.auth import Caller, Desk
from appliance.api.conversations import Id
from appliance.api.problems import documented
from appliance.services.audit import PAGE_MAX
from appliance.storage.records import AuditEntry


class AuditPage(Struct):
    """Entries, newest first; ``before`` the last one comes the next page."""

    items: list[AuditEntry]


class AuditController(Controller):
    """Who did what. The database lets nobody change or delete an entry."""

    path = "/audit"
    tags = ("Access",)

    @get(responses=documented(400, 401, 403, 404))
    async def list_entries(
        self,
        principal: Caller,
        appliance: Desk,
        limit: Annotated[int, Parameter(ge=1, le=PAGE_MAX)] = 50,
        before: Id = None,
        action: Id = None,
        actor: Id = None,
    ) -> AuditPage:
        """List what was done, newest first."""
        return AuditPage(
            [
                *await appliance.audit.page(
                    principal, limit=limit, before=before, action=action, actor=actor
                )
            ]
        )

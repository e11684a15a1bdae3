"""API keys: for admins."""

from __future__ import annotations

from litestar import Controller, delete, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Struct

from appliance.api.auth import Caller, Desk
from appliance.api.idempotency import TOLD_ONCE
from appliance.api.problems import documented
from appliance.api.schemas import KeyRequest
from appliance.services.access import NewKey
from appliance.storage.records import ApiKey


class KeyPage(Struct):
    """All keys, oldest first, without their secrets."""

    items: list[ApiKey]


class KeyController(Controller):
    """Who may use the API."""

    path = "/keys"
    tags = ("Access",)

    @get(responses=documented(401, 403))
    async def list_keys(self, appliance: Desk) -> KeyPage:
        """List keys, revoked and expired ones included."""
        return KeyPage(await appliance.access.list_keys())

    @post(opt={TOLD_ONCE: True}, responses=documented(400, 401, 403, 409, 413))
    async def create_key(
        self, data: JSONBody[KeyRequest], principal: Caller, appliance: Desk
    ) -> NewKey:
        """Make a key. It is shown this once and stored only as a hash."""
        return await appliance.access.create_key(
            data.role,
            name=data.name,
            user_id=data.user_id,
            expires_at=data.expires_at,
            by=principal,
        )

    @delete("/{key_id:str}", responses=documented(400, 401, 403, 404))
    async def revoke_key(self, key_id: FromPath[str], principal: Caller, appliance: Desk) -> None:
        """End a key and the sessions opened by it, at once."""
        await appliance.access.revoke_key(key_id, by=principal)

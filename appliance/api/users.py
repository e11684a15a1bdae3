"""Customers as the desk knows them: for agents and admins."""

from __future__ import annotations

from litestar import Controller, delete, get, put
from litestar.params import FromPath, JSONBody
from msgspec import Struct

from appliance.api.auth import Caller, Desk
from appliance.api.conversations import Id, Limit
from appliance.api.problems import documented
from appliance.api.schemas import UserRequest
from appliance.storage.records import User


class UserPage(Struct):
    """Users by id; ``after`` the last one comes the next page."""

    items: list[User]


class UserController(Controller):
    """Users."""

    path = "/users"
    tags = ("Users",)

    @get(responses=documented(400, 401, 403))
    async def list_users(self, appliance: Desk, limit: Limit = 50, after: Id = None) -> UserPage:
        """List users by id."""
        return UserPage(await appliance.users.page(limit=limit, after=after))

    @get("/{user_id:str}", responses=documented(400, 401, 403, 404))
    async def get_user(self, user_id: FromPath[str], appliance: Desk) -> User:
        """One user."""
        return await appliance.users.get(user_id)

    @put("/{user_id:str}", responses=documented(400, 401, 403, 413))
    async def put_user(
        self,
        user_id: FromPath[str],
        data: JSONBody[UserRequest],
        principal: Caller,
        appliance: Desk,
    ) -> User:
        """Create or replace what is known of a user. VIP raises the priority of their queries."""
        return await appliance.users.put(
            principal, user_id, name=data.name, email=data.email, vip=data.vip
        )

    @delete("/{user_id:str}", responses=documented(400, 401, 403, 404))
    async def forget_user(self, user_id: FromPath[str], principal: Caller, appliance: Desk) -> None:
        """Delete a user with all they wrote and were told; answer records keep their digests."""
        await appliance.users.forget(principal, user_id)

"""Accounts of the desk's people: for admins."""

from __future__ import annotations

from litestar import Controller, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Struct

from appliance.api.auth import Caller, Desk
from appliance.api.gate import SMALL
from appliance.api.problems import documented
from appliance.api.schemas import AccountRequest, NewPasswordRequest
from appliance.storage.records import Account


class AccountPage(Struct):
    """All accounts by username."""

    items: list[Account]


class AccountController(Controller):
    """Who signs in to the pages. Accounts are disabled, never deleted."""

    path = "/accounts"
    tags = ("Access",)

    @get(responses=documented(401, 403))
    async def list_accounts(self, principal: Caller, appliance: Desk) -> AccountPage:
        """List accounts, disabled ones included."""
        return AccountPage(await appliance.accounts.list(principal))

    @post(responses=documented(400, 401, 403, 409, 413, 429))
    async def create_account(
        self, data: JSONBody[AccountRequest], principal: Caller, appliance: Desk
    ) -> Account:
        """Make an account. Tell its password to its owner; they change it at /login."""
        return await appliance.accounts.create(
            principal, data.username, data.role, data.password, name=data.name
        )

    @post(
        "/{username:str}/disable",
        status_code=200,
        opt={SMALL: True},
        responses=documented(400, 401, 403, 404),
    )
    async def disable(self, username: FromPath[str], principal: Caller, appliance: Desk) -> Account:
        """Let nobody sign in by it, and end its sessions."""
        return await appliance.accounts.disable(principal, username)

    @post("/{username:str}/enable", status_code=200, responses=documented(400, 401, 403, 404))
    async def enable(self, username: FromPath[str], principal: Caller, appliance: Desk) -> Account:
        """Let its owner sign in again."""
        return await appliance.accounts.enable(principal, username)

    @post("/{username:str}/unlock", status_code=200, responses=documented(400, 401, 403, 404))
    async def unlock(self, username: FromPath[str], principal: Caller, appliance: Desk) -> Account:
        """Forgive the failed sign-ins that locked it."""
        return await appliance.accounts.unlock(principal, username)

    @post(
        "/{username:str}/password",
        status_code=200,
        opt={SMALL: True},
        responses=documented(400, 401, 403, 404, 413, 429),
    )
    async def set_password(
        self,
        username: FromPath[str],
        data: JSONBody[NewPasswordRequest],
        principal: Caller,
        appliance: Desk,
    ) -> Account:
        """Give it a new password, unlock it, and end its sessions."""
        return await appliance.accounts.set_password(principal, username, data.password)

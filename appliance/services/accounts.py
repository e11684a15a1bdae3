"""Accounts of the desk's people: made, disabled, unlocked and given passwords by administrators.

An account is never deleted, so that a name in the audit log is one person's for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from appliance.domain.policy import STAFF_ROLES, StaffRole
from appliance.domain.text import clean
from appliance.errors import Conflict, InvalidInput, NotFound
from appliance.services.access import Principal
from appliance.services.passwords import Passwords, require_good
from appliance.storage.database import Database, Records
from appliance.storage.records import Account

USERNAME: Final = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
NAME_MAX_CHARS: Final = 200


class Accounts:
    """What administrators do with accounts. Every act is in the audit log.

    Each method raises Forbidden where ``by`` is no administrator, and NotFound where there is no
    such account.
    """

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database = database
        self._passwords = passwords

    async def list(self, by: Principal) -> list[Account]:
        """All accounts by username."""
        by.require("admin")
        return list(await self._database.read(lambda records: records.accounts.list()))

    async def create(
        self, by: Principal, username: str, role: str, password: str, *, name: str = ""
    ) -> Account:
        """Make an account.

        :raises InvalidInput: a bad username, role or password.
        :raises Conflict: the username is taken.
        """
        by.require("admin")
        username = checked_username(username)
        name = clean(name) or username
        if len(name) > NAME_MAX_CHARS:
            raise InvalidInput(f"A name has at most {NAME_MAX_CHARS} characters.")
        known = _staff_role(role)
        require_good(password, username)
        password_hash = await self._passwords.hash(password)

        def work(records: Records) -> Account:
            if records.accounts.named(username) is not None:
                raise Conflict(
                    f"The user name {username} is taken.",
                    hint="Accounts are never deleted: enable the old one, or choose another name.",
                )
            made = records.accounts.add(username, name, known, password_hash)
            records.audit.add(by.owner, "account.create", username, {"role": known})
            return made

        return await self._database.write(work)

    async def set_password(self, by: Principal, username: str, password: str) -> Account:
        """Give an account a new password; all its sessions end, and it is unlocked.

        :raises InvalidInput: the password is not good enough.
        """
        by.require("admin")
        username = clean(username).lower()
        require_good(password, username)
        password_hash = await self._passwords.hash(password)

        def work(records: Records, account: Account) -> None:
            records.accounts.set_password(account.id, password_hash)
            records.sessions.end_of(account.id)

        return await self._change(by, username, "account.password", work)

    async def disable(self, by: Principal, username: str) -> Account:
        """Let nobody sign in by the account, and end its sessions."""

        def work(records: Records, account: Account) -> None:
            records.accounts.disable(account.id, datetime.now(UTC))
            records.sessions.end_of(account.id)

        return await self._change(by, username, "account.disable", work)

    async def enable(self, by: Principal, username: str) -> Account:
        """Undo ``disable``."""
        return await self._change(
            by,
            username,
            "account.enable",
            lambda records, account: records.accounts.disable(account.id, None),
        )

    async def unlock(self, by: Principal, username: str) -> Account:
        """Forgive the failed sign-ins."""
        return await self._change(
            by,
            username,
            "account.unlock",
            lambda records, account: records.accounts.failed(account.id, 0, None),
        )

    async def _change(
        self, by: Principal, username: str, action: str, work: Callable[[Records, Account], None]
    ) -> Account:
        by.require("admin")
        username = clean(username).lower()

        def changing(records: Records) -> Account:
            account = records.accounts.named(username, lock=True)
            if account is None:
                raise NotFound("There is no such account.")
            work(records, account)
            records.audit.add(by.owner, action, username)
            changed = records.accounts.get(account.id)
            assert changed is not None
            return changed

        return await self._database.write(changing)


def checked_username(username: str) -> str:
    """A username as it is stored: lower case.

    :raises InvalidInput: it could be mistaken for another or break a line.
    """
    username = clean(username).lower()
    if not USERNAME.fullmatch(username):
        raise InvalidInput(
            "A user name has 1 to 64 of a-z, 0-9, '.', '_', '@' and '-', and begins with a letter "
            "or digit."
        )
    return username


def _staff_role(role: str) -> StaffRole:
    for known in STAFF_ROLES:
        if known == role:
            return known
    raise InvalidInput(f"The role must be one of {', '.join(STAFF_ROLES)}.")

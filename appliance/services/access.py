"""Who is asking, and what they may see: principals, and the API keys that stand for some."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from appliance.domain.policy import ID_MAX_CHARS, ROLES, Role
from appliance.domain.text import clean
from appliance.errors import (
    Forbidden,
    InvalidInput,
    NotFound,
    StorageUnavailable,
    Unauthenticated,
)
from appliance.logs import get_logger
from appliance.storage.database import Database, Records
from appliance.storage.records import ApiKey, Conversation

log = get_logger()

KEY_PREFIX = "ssa_"
"""Makes a leaked key recognisable to people and scanners."""

TOUCH_EVERY = timedelta(minutes=1)
"""How stale ``last_used_at`` may be: a write for each request would cost more than the request."""


Via = Literal["key", "visitor", "session", "operator"]
"""How somebody came in: by a key, from the chat page, signed in, or on the operator's socket."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody with a role.

    ``owner`` is stored with the conversations they begin. ``user_id`` ties them to one customer;
    None leaves the choice to each request, as for a shop's server that speaks for all its
    customers.
    """

    role: Role
    owner: str
    user_id: str | None = None
    via: Via = "key"

    def sees(self, conversation: Conversation) -> bool:
        """Agents and admins see every conversation, others those they began or that are their
        user's."""
        if self.role != "customer" or conversation.owner == self.owner:
            return True
        return self.user_id is not None and conversation.user_id == self.user_id

    def require(self, *roles: Role) -> None:
        """:raises Forbidden: the role is none of these."""
        if self.role not in roles:
            raise Forbidden(f"This needs the role {' or '.join(roles)}; the key has {self.role}.")

    def speaks_for(self, user_id: str) -> None:
        """:raises Forbidden: the principal is tied to another user."""
        if self.user_id is not None and self.user_id != user_id:
            raise Forbidden("This key or session belongs to another user_id.")


OPERATOR = Principal("admin", "operator", via="operator")
"""Whoever can open the operator's socket: the file's permissions are the check."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; ``key`` is shown this once and stored nowhere."""

    id: str
    key: str
    role: Role


class Access:
    """Creates, checks and revokes keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_key(
        self,
        role: str,
        *,
        name: str = "",
        user_id: str | None = None,
        expires_at: datetime | None = None,
        by: Principal = OPERATOR,
    ) -> NewKey:
        """Make a key.

        :raises Forbidden: whoever makes it is no administrator.
        :raises InvalidInput: an unknown role, a bad user id, or a user for a role that is not tied
            to one.
        """
        by.require("admin")
        if role not in ROLES:
            raise InvalidInput(f"The role must be one of {', '.join(ROLES)}.")
        if user_id is not None and role != "customer":
            raise InvalidInput("Only a customer's key is tied to a user.")
        user_id = None if user_id is None else checked_user_id(user_id)
        key = KEY_PREFIX + secrets.token_urlsafe(32)

        def add(records: Records) -> ApiKey:
            if user_id is not None:
                records.users.ensure(user_id)
            made = records.keys.add(clean(name) or role, role, user_id, hashed(key), expires_at)
            # Not whose key it is: the log keeps everything, and a user can be forgotten.
            details = {
                "name": made.name,
                "role": role,
                "tied": user_id is not None,
                "expires_at": expires_at.isoformat() if expires_at else None,
            }
            records.audit.add(by.owner, "key.create", made.id, details)
            return made

        stored = await self._database.answer(add, told_once=True)
        return NewKey(stored.id, key, stored.role)

    async def authenticate(self, key: str) -> Principal:
        """The principal of a key.

        :raises Unauthenticated: it is unknown, expired or revoked; which of them is not said.
        """
        now = datetime.now(UTC)
        # Keys hold 256 random bits, so a plain hash is enough and a slow one would only slow down
        # requests.
        stored = await self._database.read(lambda records: records.keys.by_hash(hashed(key)))
        if stored is None or not stored.usable(now):
            raise Unauthenticated("The key is unknown, expired or revoked.")
        if stored.last_used_at is None or now - stored.last_used_at > TOUCH_EVERY:
            try:
                await self._database.write(lambda records: records.keys.touch(stored.id, now))
            except StorageUnavailable as error:
                # A full disk must not lock everybody out of reading.
                log.warning("key_not_touched", detail=error.detail)
        return Principal(stored.role, f"key:{stored.id}", stored.user_id)

    async def list_keys(self) -> list[ApiKey]:
        """All keys, without their secrets."""
        return list(await self._database.read(lambda records: records.keys.list()))

    async def revoke_key(self, key_id: str, *, by: Principal = OPERATOR) -> None:
        """End a key, and with it the sessions that were opened by it.

        :raises Forbidden: whoever ends it is no administrator.
        :raises NotFound: there is no such key, or it is revoked already.
        """
        by.require("admin")

        def work(records: Records) -> None:
            if not records.keys.revoke(key_id):
                raise NotFound("There is no such key in force.")
            records.audit.add(by.owner, "key.revoke", key_id)

        await self._database.write(work)


def checked_user_id(user_id: str) -> str:
    """A user id as it is stored and compared everywhere.

    :raises InvalidInput: nothing visible is left of it, or it is too long.
    """
    user_id = clean(user_id)
    if not 1 <= len(user_id) <= ID_MAX_CHARS:
        raise InvalidInput(f"A user_id has 1 to {ID_MAX_CHARS} visible characters.")
    return user_id


def hashed(secret: str) -> str:
    """How keys and session tokens are stored and looked up."""
    return hashlib.sha256(secret.encode()).hexdigest()

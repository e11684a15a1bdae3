"""Customers as the desk knows them."""

from __future__ import annotations

from appliance.domain.text import clean
from appliance.errors import NotFound
from appliance.services.access import Principal, checked_user_id
from appliance.storage.database import Database, Records
from appliance.storage.records import User

PAGE_MAX = 200


class Users:
    """Lists, reads and updates users. The VIP flag raises the priority of what they ask."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, *, limit: int, after: str | None = None) -> list[User]:
        """Users by id, from behind ``after``."""
        limit = max(1, min(limit, PAGE_MAX))
        return list(await self._database.read(lambda records: records.users.list(limit, after)))

    async def get(self, user_id: str) -> User:
        """:raises NotFound: there is no such user."""
        user_id = clean(user_id)
        user = await self._database.read(lambda records: records.users.get(user_id))
        if user is None:
            raise NotFound("There is no such user.")
        return user

    async def put(
        self, principal: Principal, user_id: str, *, name: str | None, email: str | None, vip: bool
    ) -> User:
        """Create or replace what is known of a user.

        :raises InvalidInput: the id is empty or too long.
        """
        user_id = checked_user_id(user_id)
        name, email = clean(name or "") or None, clean(email or "") or None

        def work(records: Records) -> User:
            records.users.ensure(user_id)
            # VIP moves its owner to the front. Neither id nor name: this stays for ever.
            records.audit.add(principal.owner, "user.update", "user", {"vip": vip})
            return records.users.update(user_id, name=name, email=email, vip=vip)

        return await self._database.write(work)

    async def forget(self, principal: Principal, user_id: str) -> None:
        """Delete a user with all they wrote and were told. Their answer records lose every word of
        them; the digests stay, so that the chain can be verified.

        :raises Forbidden: the principal is no administrator.
        :raises NotFound: there is no such user.
        """
        principal.require("admin")
        user_id = clean(user_id)

        def work(records: Records) -> None:
            if records.users.get(user_id, lock=True) is None:
                raise NotFound("There is no such user.")
            erased = records.answers.erase_user(user_id)
            deleted = records.conversations.delete_of(user_id)
            records.events.forget_user(user_id)
            records.keys.delete_of(user_id)
            records.users.delete(user_id)
            # Without the id: what is written here stays for ever.
            counts = {"conversations": deleted, "answer_records": erased}
            records.audit.add(principal.owner, "user.forget", "user", counts)

        await self._database.write(work)

"""Customers, as far as the desk knows them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

from sqlalchemy import delete, select, update

from appliance.errors import NotFound
from appliance.storage.records import User
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import users
from appliance.storage.types import utc_now

_COLUMNS = columns_for(User, users)


class Unchanged(Enum):
    """The type of ``UNCHANGED``; None is a value a field can be set to."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED


class UserRepository(Repository):
    """Users by the id that the calling system gave them."""

    def get(self, user_id: str, *, lock: bool = False) -> User | None:
        """The user, or None; ``lock`` as for conversations, and nobody begins one meanwhile."""
        statement = select(*_COLUMNS).where(users.c.id == user_id)
        return self._first(User, statement.with_for_update() if lock else statement)

    def ensure(self, user_id: str) -> User:
        """The user with this id, created without name or mark when new."""
        now = utc_now()
        self._connection.execute(
            self._insert(users)
            .values(id=user_id, vip=False, created_at=now, updated_at=now)
            .on_conflict_do_nothing(index_elements=["id"])
        )
        return self._one(User, select(*_COLUMNS).where(users.c.id == user_id))

    def update(
        self,
        user_id: str,
        *,
        name: str | Unchanged | None = UNCHANGED,
        email: str | Unchanged | None = UNCHANGED,
        vip: bool | Unchanged = UNCHANGED,
    ) -> User:
        """Set the fields given.

        :raises NotFound: there is no such user.
        """
        given: dict[str, Any] = {"name": name, "email": email, "vip": vip}
        changes = {field: value for field, value in given.items() if value is not UNCHANGED}
        statement = (
            update(users).where(users.c.id == user_id).values(**changes, updated_at=utc_now())
        )
        user = self._first(User, statement.returning(*_COLUMNS))
        if user is None:
            raise NotFound("There is no such user.")
        return user

    def delete(self, user_id: str) -> bool:
        """Delete a user whose conversations are gone (else Conflict); whether there was one."""
        statement = delete(users).where(users.c.id == user_id)
        return self._connection.execute(statement).rowcount > 0

    def list(self, limit: int, after: str | None = None) -> Sequence[User]:
        """Users by id; ``after`` is the last id of the page before."""
        statement = select(*_COLUMNS).order_by(users.c.id).limit(limit)
        if after is not None:
            statement = statement.where(users.c.id > after)
        return self._all(User, statement)

"""API keys. The secret itself never comes here, only its hash."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, insert, or_, select, update

from appliance.domain.policy import Role
from appliance.storage.records import ApiKey
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import api_keys
from appliance.storage.types import new_id, utc_now

_COLUMNS = columns_for(ApiKey, api_keys)
_c = api_keys.c


class KeyRepository(Repository):
    """Keys, revoked and expired ones included: whether one may be used is ``ApiKey.usable``."""

    def add(
        self,
        name: str,
        role: Role,
        user_id: str | None,
        key_hash: str,
        expires_at: datetime | None = None,
    ) -> ApiKey:
        statement = insert(api_keys).values(
            id=new_id(),
            name=name,
            role=role,
            user_id=user_id,
            key_hash=key_hash,
            created_at=utc_now(),
            expires_at=expires_at,
        )
        return self._one(ApiKey, statement.returning(*_COLUMNS))

    def by_hash(self, key_hash: str) -> ApiKey | None:
        return self._first(ApiKey, select(*_COLUMNS).where(_c.key_hash == key_hash))

    def get(self, key_id: str) -> ApiKey | None:
        return self._first(ApiKey, select(*_COLUMNS).where(_c.id == key_id))

    def list(self) -> Sequence[ApiKey]:
        """All keys, oldest first."""
        return self._all(ApiKey, select(*_COLUMNS).order_by(_c.created_at, _c.id))

    def revoke(self, key_id: str) -> bool:
        """True when the key was in force until now."""
        statement = update(api_keys).where(_c.id == key_id, _c.revoked_at.is_(None))
        return self._connection.execute(statement.values(revoked_at=utc_now())).rowcount == 1

    def delete_of(self, user_id: str) -> None:
        """Delete the keys tied to a user."""
        self._connection.execute(delete(api_keys).where(_c.user_id == user_id))

    def touch(self, key_id: str, when: datetime) -> None:
        """Note a use; never moves back, whatever order uses arrive in."""
        older = or_(_c.last_used_at.is_(None), _c.last_used_at < when)
        self._connection.execute(
            update(api_keys).where(_c.id == key_id, older).values(last_used_at=when)
        )

"""Browsers that are signed in. A session's token never comes here, only its hash."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, insert, select, update

from appliance.storage.records import StaffSession
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import sessions
from appliance.storage.types import new_id, utc_now

_COLUMNS = columns_for(StaffSession, sessions)
_c = sessions.c


class SessionRepository(Repository):
    """Sessions, expired ones included until they are tidied away."""

    def add(
        self, token_hash: str, expires_at: datetime, *, account_id: str | None, key_id: str | None
    ) -> StaffSession:
        """A new session of an account or of a key."""
        now = utc_now()
        statement = insert(sessions).values(
            id=new_id(),
            token_hash=token_hash,
            account_id=account_id,
            key_id=key_id,
            created_at=now,
            last_seen_at=now,
            expires_at=expires_at,
        )
        return self._one(StaffSession, statement.returning(*_COLUMNS))

    def by_hash(self, token_hash: str) -> StaffSession | None:
        return self._first(StaffSession, select(*_COLUMNS).where(_c.token_hash == token_hash))

    def touch(self, session_id: str, when: datetime) -> None:
        """Note a use; never moves back."""
        self._connection.execute(
            update(sessions)
            .where(_c.id == session_id, _c.last_seen_at < when)
            .values(last_seen_at=when)
        )

    def end(self, token_hash: str) -> None:
        self._connection.execute(delete(sessions).where(_c.token_hash == token_hash))

    def end_of(self, account_id: str) -> int:
        """End all sessions of an account; how many there were."""
        statement = delete(sessions).where(_c.account_id == account_id)
        return self._connection.execute(statement).rowcount

    def end_all(self) -> int:
        """End every session; how many there were."""
        return self._connection.execute(delete(sessions)).rowcount

    def tidy(self, now: datetime) -> None:
        """Delete what has expired."""
        self._connection.execute(delete(sessions).where(_c.expires_at <= now))

"""Requests that came with an ``Idempotency-Key``, and what was answered to each."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select, update

from appliance.storage.records import OnceRow
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import idempotency_keys
from appliance.storage.types import utc_now

PURGED = 100
"""Most expired rows that one new request removes: as each adds one, none of them piles up."""

_COLUMNS = columns_for(OnceRow, idempotency_keys)
_c = idempotency_keys.c


class IdempotencyRepository(Repository):
    """One row for each key of a principal. Rows go with the message or conversation they are
    about."""

    def claim(
        self, row_id: str, fingerprint: str, holder: str, lease: timedelta, kept: timedelta
    ) -> OnceRow | None:
        """Make the row of a new request, or return the one that is there, locked. Removes what has
        expired."""
        now = utc_now()
        expired = select(_c.id).where(_c.expires_at <= now).order_by(_c.expires_at).limit(PURGED)
        self._connection.execute(delete(idempotency_keys).where(_c.id.in_(expired)))
        self._connection.execute(
            delete(idempotency_keys).where((_c.id == row_id) & (_c.expires_at <= now))
        )
        # The row itself says whether it is new: drivers do not agree on what they count here.
        inserted = self._connection.execute(
            self._insert(idempotency_keys)
            .values(
                id=row_id,
                fingerprint=fingerprint,
                holder=holder,
                lease_expires_at=now + lease,
                created_at=now,
                expires_at=now + kept,
            )
            .on_conflict_do_nothing()
            .returning(_c.id)
        )
        if inserted.first() is not None:
            return None
        found = self._first(OnceRow, select(*_COLUMNS).where(_c.id == row_id).with_for_update())
        if found is None:  # PostgreSQL: it was given up between the two statements
            return self.claim(row_id, fingerprint, holder, lease, kept)
        return found

    def hold(self, row_id: str, holder: str, lease: timedelta) -> None:
        """Take over what nobody works on any more."""
        self._set(row_id, holder=holder, lease_expires_at=utc_now() + lease)

    def about(self, row_id: str, *, message_id: str) -> None:
        """Tie the request to the message it brought."""
        self._set(row_id, message_id=message_id)

    def answered(
        self,
        row_id: str,
        holder: str,
        status: int,
        body: str | None,
        *,
        message_id: str | None = None,
        conversation_id: str | None = None,
    ) -> bool:
        """Keep the answer; a body of None says that it was carried out and cannot be told again.
        False where it was answered already or is another's by now."""
        kept = self._connection.execute(
            update(idempotency_keys)
            .where((_c.id == row_id) & (_c.holder == holder) & _c.status.is_(None))
            .values(
                status=status,
                body=body,
                message_id=message_id,
                conversation_id=conversation_id,
            )
            .returning(_c.id)
        )
        return kept.first() is not None

    def drop(self, row_id: str, holder: str) -> None:
        """Forget a request that changed nothing, unless it was answered or is another's by now."""
        mine = (_c.id == row_id) & (_c.holder == holder) & _c.status.is_(None)
        self._connection.execute(delete(idempotency_keys).where(mine))

    def _set(self, row_id: str, **values: Any) -> None:
        self._connection.execute(update(idempotency_keys).where(_c.id == row_id).values(**values))

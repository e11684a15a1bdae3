"""Carrying out a request once, however often it is sent.

A request is claimed in the database before it is carried out, and its answer is kept there. Changes
that make their answer in one transaction keep both in it (``Database.answer``); queries tie the
claim to the message they store (``services/answer_query.py``). What was refused is forgotten: it
changed nothing and may be sent again.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from appliance.domain.once import Once
from appliance.domain.policy import REQUEST_LEASE_SECONDS
from appliance.errors import Conflict, KeyReused, UnderWay
from appliance.storage.database import Database, Records
from appliance.storage.records import OnceRow

RETRY_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """What was answered; ``body`` is JSON."""

    status: int
    body: str


class Idempotency:
    """Claims and answers of requests.

    :param hours: how long an answer is kept; after that the same key is a new request.
    """

    def __init__(self, database: Database, hours: float) -> None:
        self._database = database
        self._kept = timedelta(hours=hours)
        self.holder = uuid.uuid4().hex
        """Who works on claims: this process, until it ends."""

    def claim(self, records: Records, once: Once, lease: timedelta) -> OnceRow | None:
        """Claim a request inside a transaction: None when it is new, else the row that is there.

        :raises KeyReused: the key came with another request before.
        """
        row = records.idempotency.claim(once.id, once.fingerprint, self.holder, lease, self._kept)
        if row is not None and row.fingerprint != once.fingerprint:
            raise KeyReused
        return row

    async def begin(self, once: Once) -> Kept | None:
        """Claim a request: None when it has to be carried out now, else what was answered.

        :raises KeyReused: the key came with another request before.
        :raises UnderWay: it is being carried out.
        :raises Conflict: it was carried out, and its answer was too long or too secret to keep.
        """
        lease = timedelta(seconds=REQUEST_LEASE_SECONDS)

        def work(records: Records) -> Kept | None:
            row = self.claim(records, once, lease)
            if row is None:
                return None
            if row.status is not None:
                if row.body is None:
                    raise Conflict(
                        "This request was carried out; its answer is told only once.",
                        hint="Read the present state instead of repeating the request.",
                    )
                return Kept(row.status, row.body)
            if row.lease_expires_at > datetime.now(UTC):
                raise UnderWay(retry_after=RETRY_SECONDS)
            records.idempotency.hold(row.id, self.holder, lease)
            return None

        return await self._database.write(work)

    async def finish(self, once: Once, status: int, body: str | None) -> None:
        """Keep the answer, unless it was kept with the change itself."""

        def work(records: Records) -> None:
            row = records.idempotency.get(once.id)
            if row is not None and row.status is None:
                records.idempotency.answered(once.id, status, body)

        await self._database.write(work)

    async def give_up(self, once: Once) -> None:
        """Forget a request that was refused."""
        await self._database.write(lambda records: records.idempotency.drop(once.id, self.holder))

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

from appliance.domain.once import Claim, Once
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

    def claim(
        self, records: Records, once: Once, lease: timedelta, holder: str | None = None
    ) -> OnceRow | None:
        """Claim a request inside a transaction: None when it is new, else the row that is there.

        :param holder: who works on it; by default this process.
        :raises KeyReused: the key came with another request before.
        """
        holder = holder or self.holder
        row = records.idempotency.claim(once.id, once.fingerprint, holder, lease, self._kept)
        if row is not None and row.fingerprint != once.fingerprint:
            raise KeyReused
        return row

    async def begin(self, claim: Claim) -> Kept | None:
        """Claim a request: None when it has to be carried out now, else what was answered.

        :raises KeyReused: the key came with another request before.
        :raises UnderWay: it is being carried out.
        :raises Conflict: it was carried out, and its answer was too long or too secret to keep.
        """
        lease = timedelta(seconds=REQUEST_LEASE_SECONDS)

        def work(records: Records) -> Kept | None:
            row = self.claim(records, claim.once, lease, claim.holder)
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
            records.idempotency.hold(row.id, claim.holder, lease)
            return None

        return await self._database.write(work)

    async def finish(self, claim: Claim, status: int, body: str | None) -> None:
        """Keep the answer, unless it was kept with the change itself, or somebody took over."""
        await self._database.write(
            lambda records: records.idempotency.answered(claim.once.id, claim.holder, status, body)
        )

    async def give_up(self, claim: Claim) -> None:
        """Forget a request that was refused, unless somebody took over."""
        await self._database.write(
            lambda records: records.idempotency.drop(claim.once.id, claim.holder)
        )

"""What processes leave for one another: who runs, what serves, which requests are under way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker and its latest sign of life."""

    id: str
    host: str
    pid: int
    started_at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that serves, by the SHA-256 of its weights where the server tells it."""

    model: str
    sha256: str | None
    since: datetime


@dataclass(frozen=True, slots=True)
class OnceRow:
    """A request that came with an ``Idempotency-Key``.

    ``message_id`` is the customer's message that it brought. ``status`` and ``body`` are what was
    answered; a status without a body was carried out and cannot be told again. Until then
    ``holder`` works on it, or did when the lease ran out.
    """

    id: str
    fingerprint: str
    holder: str
    lease_expires_at: datetime
    message_id: str | None
    status: int | None
    body: str | None

"""Receivers of events, their deliveries, and every attempt at one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypedDict

DeliveryState = Literal["pending", "sending", "delivered", "dead"]
"""Pending waits for its time; sending belongs to a worker until its lease ends; dead has used up
its attempts, or its webhook was disabled."""

DisabledReason = Literal["operator", "gone", "failing"]
"""An administrator switched it off; it answered 410; nothing but failures for days."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of events, without its secrets. ``events`` are the types it gets; ``ca_pem``
    certificates to trust beside the system's; ``failing_since`` the first failure since the last
    success."""

    id: str
    url: str
    events: Sequence[str]
    description: str | None
    ca_pem: str | None
    active: bool
    disabled_reason: DisabledReason | None
    disabled_at: datetime | None
    failing_since: datetime | None
    previous_secret_expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


class WebhookChanges(TypedDict, total=False):
    """The fields of a webhook that an administrator may change; an absent key leaves one alone."""

    url: str
    events: Sequence[str]
    description: str | None
    ca_pem: str | None
    active: bool


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What sending needs of a webhook. Secrets are as the services sealed them."""

    id: str
    url: str
    ca_pem: str | None
    active: bool
    failing_since: datetime | None
    secret: str
    previous_secret: str | None
    previous_secret_expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one webhook. ``attempts`` counts all of them; ``failures`` those
    since the delivery was last asked for. The latter two tell of the latest attempt."""

    id: str
    webhook_id: str
    event_id: str
    event_type: str
    body: str
    state: DeliveryState
    attempts: int
    failures: int
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    response_status: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to deliver; either an HTTP status or an error. ``response`` is the beginning of what
    the receiver said, None where nothing came."""

    number: int
    started_at: datetime
    duration_ms: int | None
    status: int | None
    error: str | None
    response: str | None

"""Receivers of events, the outbox, and every attempt at it."""

from __future__ import annotations

from typing import get_args

from sqlalchemy import CheckConstraint, Column, Index, Table
from sqlalchemy import UniqueConstraint as Unique

from appliance.domain import policy
from appliance.storage.records import DeliveryState, DisabledReason
from appliance.storage.tables.columns import (
    CONTENT_CHARS,
    ID_CHARS,
    LINE_CHARS,
    WORD_CHARS,
    at_most,
    count,
    key,
    metadata,
    one_of,
    parent,
    text,
    time,
    truth,
)
from appliance.storage.types import Flag, Json

# ``failing_since`` is the first failure since the last success; ``ca_pem`` certificates of whoever
# signed the receiver's own. Secrets are kept as the services seal them.
webhooks = Table(
    "webhooks",
    metadata,
    key(),
    text("url"),
    Column("events", Json, nullable=False),
    text("description", null=True),
    text("ca_pem", null=True),
    text("secret"),
    # While a secret rotates, deliveries are signed with both until the older one expires.
    text("previous_secret", null=True),
    time("previous_secret_expires_at", null=True),
    Column("active", Flag, nullable=False),
    text("disabled_reason", null=True),
    time("disabled_at", null=True),
    time("failing_since", null=True),
    time("created_at"),
    time("updated_at"),
    *at_most(
        id=ID_CHARS,
        url=2_048,
        description=LINE_CHARS,
        ca_pem=CONTENT_CHARS,
        secret=LINE_CHARS,
        previous_secret=LINE_CHARS,
    ),
    truth("active"),
    one_of("disabled_reason", get_args(DisabledReason)),
    CheckConstraint("active = (disabled_reason IS NULL)", name="disabled_reason_told"),
    CheckConstraint("active = (disabled_at IS NULL)", name="disabled_at_told"),
    sqlite_strict=True,
)

# The outbox. ``body`` is what is signed and sent, to the byte. Without ``next_attempt_at`` a
# pending delivery is due whatever the clock says.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    key(),
    parent("webhook_id", "webhooks.id", on_delete="CASCADE"),
    text("event_id"),
    text("event_type"),
    text("user_id", null=True),
    text("body"),
    text("state"),
    count("attempts"),
    count("failures"),
    time("next_attempt_at", null=True),
    text("lease_owner", null=True),
    time("lease_expires_at", null=True),
    count("response_status", null=True),
    text("last_error", null=True),
    time("created_at"),
    time("finished_at", null=True),
    *at_most(
        id=ID_CHARS,
        event_id=ID_CHARS,
        event_type=WORD_CHARS,
        user_id=ID_CHARS,
        body=CONTENT_CHARS,
        lease_owner=ID_CHARS,
        last_error=LINE_CHARS,
    ),
    one_of("state", get_args(DeliveryState)),
    CheckConstraint("failures BETWEEN 0 AND attempts", name="failures_range"),
    CheckConstraint("(state = 'sending') = (lease_owner IS NOT NULL)", name="lease_owned"),
    CheckConstraint("(lease_owner IS NULL) = (lease_expires_at IS NULL)", name="lease_whole"),
    CheckConstraint(
        "(state IN ('delivered', 'dead')) = (finished_at IS NOT NULL)", name="finished_told"
    ),
    # In the order in which a webhook's deliveries are claimed.
    Index(None, "webhook_id", "state", "next_attempt_at", "created_at", "id"),
    Index(None, "state", "next_attempt_at"),
    Index(None, "created_at", "id"),
    Index(None, "event_id"),
    Index(None, "user_id"),
    sqlite_strict=True,
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    key(),
    parent("delivery_id", "webhook_deliveries.id", on_delete="CASCADE"),
    count("number"),
    time("started_at"),
    count("duration_ms", null=True),
    count("status", null=True),
    text("error", null=True),
    text("response", null=True),
    *at_most(id=ID_CHARS, error=LINE_CHARS, response=policy.WEBHOOK_RESPONSE_KEPT),
    CheckConstraint("number >= 1", name="number_range"),
    CheckConstraint("status IS NOT NULL OR error IS NOT NULL", name="outcome_told"),
    Unique("delivery_id", "number"),
    sqlite_strict=True,
)

"""Webhooks with their outbox, attempts, workers' signs of life, and the model that serves.

The two tables of the first migration were never written by any release: they are replaced.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "202611241500"
down_revision = "202611241130"
branch_labels = None
depends_on = None

TEXT = sa.Text()
NUMBER = sa.Integer()
TIME = sa.Text().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
FLAG = sa.Integer().with_variant(sa.Boolean(), "postgresql")
JSON = sa.Text().with_variant(JSONB(), "postgresql")


def column(name: str, kind: sa.types.TypeEngine = TEXT, *, null: bool = False) -> sa.Column:
    return sa.Column(name, kind, nullable=null)


def at_most(**limits: int) -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(f"length({name}) <= {limit}", name=f"{name}_length")
        for name, limit in limits.items()
    ]


def one_of(name: str, *values: str) -> sa.CheckConstraint:
    known = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{name} IN ({known})", name=f"{name}_known")


def upgrade() -> None:
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
    op.create_table(
        "webhooks",
        column("id"),
        column("url"),
        column("events", JSON),
        column("description", null=True),
        column("ca_pem", null=True),
        column("secret"),
        column("previous_secret", null=True),
        column("previous_secret_expires_at", TIME, null=True),
        column("active", FLAG),
        column("disabled_reason", null=True),
        column("disabled_at", TIME, null=True),
        column("failing_since", TIME, null=True),
        column("created_at", TIME),
        column("updated_at", TIME),
        sa.PrimaryKeyConstraint("id"),
        *at_most(
            id=128, url=2_048, description=500, ca_pem=65_536, secret=500, previous_secret=500
        ),
        sa.CheckConstraint("active IN (TRUE, FALSE)", name="active_truth"),
        one_of("disabled_reason", "operator", "gone", "failing"),
        sa.CheckConstraint("active = (disabled_reason IS NULL)", name="disabled_reason_told"),
        sa.CheckConstraint("active = (disabled_at IS NULL)", name="disabled_at_told"),
        sqlite_strict=True,
    )
    op.create_table(
        "webhook_deliveries",
        column("id"),
        column("webhook_id"),
        column("event_id"),
        column("event_type"),
        column("user_id", null=True),
        column("body"),
        column("state"),
        column("attempts", NUMBER),
        column("failures", NUMBER),
        column("next_attempt_at", TIME, null=True),
        column("lease_owner", null=True),
        column("lease_expires_at", TIME, null=True),
        column("response_status", NUMBER, null=True),
        column("last_error", null=True),
        column("created_at", TIME),
        column("finished_at", TIME, null=True),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhooks.id"], ondelete="CASCADE"),
        *at_most(
            id=128,
            event_id=128,
            event_type=64,
            user_id=128,
            body=65_536,
            lease_owner=128,
            last_error=500,
        ),
        one_of("state", "pending", "sending", "delivered", "dead"),
        sa.CheckConstraint("failures BETWEEN 0 AND attempts", name="failures_range"),
        sa.CheckConstraint("(state = 'sending') = (lease_owner IS NOT NULL)", name="lease_owned"),
        sa.CheckConstraint(
            "(lease_owner IS NULL) = (lease_expires_at IS NULL)", name="lease_whole"
        ),
        sa.CheckConstraint(
            "(state IN ('delivered', 'dead')) = (finished_at IS NOT NULL)", name="finished_told"
        ),
        sqlite_strict=True,
    )
    for columns in (
        ["webhook_id", "state", "next_attempt_at", "created_at", "id"],
        ["state", "next_attempt_at"],
        ["created_at", "id"],
        ["event_id"],
        ["user_id"],
    ):
        op.create_index(None, "webhook_deliveries", columns)
    op.create_table(
        "webhook_attempts",
        column("id"),
        column("delivery_id"),
        column("number", NUMBER),
        column("started_at", TIME),
        column("duration_ms", NUMBER, null=True),
        column("status", NUMBER, null=True),
        column("error", null=True),
        column("response", null=True),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["delivery_id"], ["webhook_deliveries.id"], ondelete="CASCADE"),
        *at_most(id=128, error=500, response=2_048),
        sa.CheckConstraint("number >= 1", name="number_range"),
        sa.CheckConstraint("status IS NOT NULL OR error IS NOT NULL", name="outcome_told"),
        sa.UniqueConstraint("delivery_id", "number"),
        sqlite_strict=True,
    )
    op.create_table(
        "workers",
        column("id"),
        column("host"),
        column("pid", NUMBER),
        column("started_at", TIME),
        column("seen_at", TIME),
        sa.PrimaryKeyConstraint("id"),
        *at_most(id=128, host=500),
        sqlite_strict=True,
    )
    op.create_table(
        "served_model",
        sa.Column("id", NUMBER, nullable=False, autoincrement=False),
        column("model"),
        column("sha256", null=True),
        column("since", TIME),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("id = 1", name="single_row"),
        *at_most(model=500, sha256=64),
        sqlite_strict=True,
    )


def downgrade() -> None:
    for table in (
        "served_model",
        "workers",
        "webhook_attempts",
        "webhook_deliveries",
        "webhooks",
    ):
        op.drop_table(table)
    op.create_table(
        "webhooks",
        column("id"),
        column("url"),
        column("events", JSON),
        column("description", null=True),
        column("secret"),
        column("previous_secret", null=True),
        column("previous_secret_expires_at", TIME, null=True),
        column("active", FLAG),
        column("created_at", TIME),
        column("updated_at", TIME),
        sa.PrimaryKeyConstraint("id"),
        *at_most(id=128, url=2_048, description=500, secret=500, previous_secret=500),
        sa.CheckConstraint("active IN (TRUE, FALSE)", name="active_truth"),
        sqlite_strict=True,
    )
    op.create_table(
        "webhook_deliveries",
        column("id"),
        column("webhook_id"),
        column("event_id"),
        column("event_type"),
        column("payload", JSON),
        column("status"),
        column("attempts", NUMBER),
        column("next_attempt_at", TIME, null=True),
        column("lease_owner", null=True),
        column("lease_expires_at", TIME, null=True),
        column("response_status", NUMBER, null=True),
        column("last_error", null=True),
        column("created_at", TIME),
        column("delivered_at", TIME, null=True),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhooks.id"], ondelete="CASCADE"),
        *at_most(id=128, event_id=128, event_type=64, lease_owner=128, last_error=2_000),
        one_of("status", "pending", "delivered", "failed", "dead"),
        sa.CheckConstraint("attempts >= 0", name="attempts_range"),
        sqlite_strict=True,
    )
    op.create_index(None, "webhook_deliveries", ["status", "next_attempt_at"])
    op.create_index(None, "webhook_deliveries", ["webhook_id", "created_at"])

"""Requests with an Idempotency-Key and what was answered; heartbeats of processes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "202611241600"
down_revision = "202611241530"
branch_labels = None
depends_on = None

TEXT = sa.Text()
TIME = sa.Text().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def at_most(**limits: int) -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(f"length({name}) <= {limit}", name=f"{name}_length")
        for name, limit in limits.items()
    ]


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("lease_expires_at", TIME, nullable=False),
        sa.Column("message_id", TEXT, nullable=True),
        sa.Column("conversation_id", TEXT, nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("body", TEXT, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["conversation_id"], ["conversations.id"], ondelete="CASCADE"),
        *at_most(id=64, fingerprint=64, holder=64, body=65_536),
        sa.CheckConstraint("status BETWEEN 200 AND 299", name="status_range"),
        sa.CheckConstraint("body IS NULL OR status IS NOT NULL", name="answer_whole"),
        sqlite_strict=True,
    )
    op.create_index(None, "idempotency_keys", ["expires_at"])
    op.create_index(None, "idempotency_keys", ["message_id"])
    op.create_index(None, "idempotency_keys", ["conversation_id"])
    op.create_table(
        "heartbeats",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        *at_most(id=64),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("heartbeats")
    op.drop_table("idempotency_keys")

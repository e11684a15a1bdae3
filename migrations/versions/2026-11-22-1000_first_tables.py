"""First tables.

Names of constraints and indexes come from the naming convention in ``appliance.storage.tables``;
everything else is spelled out here, so that later changes of the code leave this migration as it
was.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "202611221000"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text()
NUMBER = sa.Integer()
TIME = sa.Text().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
FLAG = sa.Integer().with_variant(sa.Boolean(), "postgresql")
JSON = sa.Text().with_variant(JSONB(), "postgresql")


def key() -> list[sa.schema.SchemaItem]:
    return [column("id"), sa.PrimaryKeyConstraint("id"), *at_most(id=128)]


def column(
    name: str, kind: sa.types.TypeEngine[Any] = TEXT, *, null: bool = False
) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=null)


def parent(name: str, target: str, on_delete: str | None = None) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([name], [target], ondelete=on_delete)


def at_most(**limits: int) -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(f"length({name}) <= {limit}", name=f"{name}_length")
        for name, limit in limits.items()
    ]


def one_of(name: str, *values: str) -> sa.CheckConstraint:
    known = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{name} IN ({known})", name=f"{name}_known")


def truth(name: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{name} IN (TRUE, FALSE)", name=f"{name}_truth")


def upgrade() -> None:
    op.create_table(
        "users",
        *key(),
        column("name", null=True),
        column("email", null=True),
        column("vip", FLAG),
        column("created_at", TIME),
        column("updated_at", TIME),
        *at_most(name=500, email=500),
        truth("vip"),
        sqlite_strict=True,
    )
    op.create_table(
        "conversations",
        *key(),
        column("user_id"),
        column("owner"),
        column("title"),
        column("status"),
        column("category", null=True),
        column("priority", NUMBER, null=True),
        column("topic_article_id", null=True),
        column("topic_question", null=True),
        column("attempts", NUMBER),
        column("escalation_reason", null=True),
        column("case_reference", null=True),
        column("created_at", TIME),
        column("updated_at", TIME),
        parent("user_id", "users.id"),
        *at_most(owner=192, title=500, category=64, topic_article_id=128, topic_question=65_536),
        *at_most(escalation_reason=64, case_reference=64),
        one_of("status", "open", "escalated", "resolved"),
        sa.CheckConstraint("priority BETWEEN 1 AND 10", name="priority_range"),
        sa.CheckConstraint("attempts >= 0", name="attempts_range"),
        sa.UniqueConstraint("case_reference"),
        sqlite_strict=True,
    )
    op.create_index(None, "conversations", ["updated_at", "id"])
    op.create_index(None, "conversations", ["user_id", "updated_at", "id"])
    op.create_index(None, "conversations", ["owner", "updated_at", "id"])
    op.create_index(None, "conversations", ["status", "updated_at", "id"])
    op.create_table(
        "messages",
        *key(),
        column("conversation_id"),
        column("seq", NUMBER),
        column("role"),
        column("content"),
        column("state"),
        column("reply_to", null=True),
        column("category", null=True),
        column("sentiment", null=True),
        column("priority", NUMBER, null=True),
        column("outcome", null=True),
        column("mode", null=True),
        column("escalated", FLAG),
        column("details", JSON),
        column("created_at", TIME),
        parent("conversation_id", "conversations.id", "CASCADE"),
        parent("reply_to", "messages.id", "SET NULL"),
        *at_most(content=65_536, category=64),
        sa.CheckConstraint("seq >= 1", name="seq_range"),
        one_of("role", "customer", "assistant", "agent"),
        one_of("state", "received", "answered", "failed", "sent"),
        one_of("sentiment", "Positive", "Neutral", "Negative", "Angry"),
        sa.CheckConstraint("priority BETWEEN 1 AND 10", name="priority_range"),
        one_of("outcome", "answered", "abstained", "smalltalk", "handoff"),
        one_of("mode", "quoted", "drafted", "curated", "none"),
        truth("escalated"),
        sa.UniqueConstraint("conversation_id", "seq"),
        sqlite_strict=True,
    )
    op.create_index(None, "messages", ["reply_to"])
    op.create_table(
        "feedback",
        *key(),
        column("message_id"),
        column("conversation_id"),
        column("rating"),
        column("comment", null=True),
        column("created_at", TIME),
        column("updated_at", TIME),
        parent("message_id", "messages.id", "CASCADE"),
        parent("conversation_id", "conversations.id", "CASCADE"),
        *at_most(comment=2_000),
        one_of("rating", "up", "down"),
        sa.UniqueConstraint("message_id"),
        sqlite_strict=True,
    )
    op.create_index(None, "feedback", ["conversation_id"])
    op.create_table(
        "analytics_events",
        *key(),
        column("type"),
        column("conversation_id", null=True),
        column("user_id", null=True),
        column("data", JSON),
        column("created_at", TIME),
        parent("conversation_id", "conversations.id", "SET NULL"),
        *at_most(type=64, user_id=128),
        sqlite_strict=True,
    )
    op.create_index(None, "analytics_events", ["type", "created_at"])
    op.create_index(None, "analytics_events", ["conversation_id"])
    op.create_table(
        "knowledge_entries",
        *key(),
        column("position", NUMBER),
        column("question"),
        column("answer"),
        column("category"),
        column("created_at", TIME),
        column("updated_at", TIME),
        *at_most(question=65_536, answer=65_536, category=64),
        sqlite_strict=True,
    )
    op.create_index(None, "knowledge_entries", ["position"])
    knowledge_state = op.create_table(
        "knowledge_state",
        sa.Column("id", NUMBER, nullable=False, autoincrement=False),
        column("version", NUMBER),
        column("digest"),
        column("updated_at", TIME),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("id = 1", name="single_row"),
        *at_most(digest=64),
        sqlite_strict=True,
    )
    op.create_table(
        "api_keys",
        *key(),
        column("name"),
        column("role"),
        column("user_id", null=True),
        column("key_hash"),
        column("created_at", TIME),
        column("expires_at", TIME, null=True),
        column("last_used_at", TIME, null=True),
        column("revoked_at", TIME, null=True),
        *at_most(name=500, user_id=128, key_hash=128),
        one_of("role", "customer", "agent", "admin"),
        sa.UniqueConstraint("key_hash"),
        sqlite_strict=True,
    )
    op.create_table(
        "webhooks",
        *key(),
        column("url"),
        column("events", JSON),
        column("description", null=True),
        column("secret"),
        column("previous_secret", null=True),
        column("previous_secret_expires_at", TIME, null=True),
        column("active", FLAG),
        column("created_at", TIME),
        column("updated_at", TIME),
        *at_most(url=2_048, description=500, secret=500, previous_secret=500),
        truth("active"),
        sqlite_strict=True,
    )
    op.create_table(
        "webhook_deliveries",
        *key(),
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
        parent("webhook_id", "webhooks.id", "CASCADE"),
        *at_most(event_id=128, event_type=64, lease_owner=128, last_error=2_000),
        one_of("status", "pending", "delivered", "failed", "dead"),
        sa.CheckConstraint("attempts >= 0", name="attempts_range"),
        sqlite_strict=True,
    )
    op.create_index(None, "webhook_deliveries", ["status", "next_attempt_at"])
    op.create_index(None, "webhook_deliveries", ["webhook_id", "created_at"])

    # The digest of no articles at all: that of an empty JSON list.
    moment = datetime.now(UTC)
    sqlite = op.get_bind().dialect.name == "sqlite"
    op.bulk_insert(
        knowledge_state,
        [
            {
                "id": 1,
                "version": 0,
                "digest": hashlib.sha256(b"[]").hexdigest(),
                "updated_at": moment.isoformat(timespec="microseconds") if sqlite else moment,
            }
        ],
    )


def downgrade() -> None:
    for table in (
        "webhook_deliveries",
        "webhooks",
        "api_keys",
        "knowledge_state",
        "knowledge_entries",
        "analytics_events",
        "feedback",
        "messages",
        "conversations",
        "users",
    ):
        op.drop_table(table)

"""What people say of messages, for the heads to learn from, and the desk's own golden set."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "202611241130"
down_revision = "202611241040"
branch_labels = None
depends_on = None

TEXT = sa.Text()
TIME = sa.Text().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
FLAG = sa.Integer().with_variant(sa.Boolean(), "postgresql")
JSON = sa.Text().with_variant(JSONB(), "postgresql")


def at_most(**limits: int) -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(f"length({name}) <= {limit}", name=f"{name}_length")
        for name, limit in limits.items()
    ]


def one_of(name: str, *values: str) -> sa.CheckConstraint:
    known = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{name} IN ({known})", name=f"{name}_known")


def upgrade() -> None:
    op.create_table(
        "learning_examples",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("message_id", TEXT, nullable=True),
        sa.Column("text", TEXT, nullable=False),
        sa.Column("text_key", TEXT, nullable=False),
        sa.Column("category", TEXT, nullable=True),
        sa.Column("sentiment", TEXT, nullable=True),
        sa.Column("intent", TEXT, nullable=True),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("labelled_by", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], ondelete="CASCADE"),
        sa.UniqueConstraint("message_id"),
        *at_most(id=128, text=65_536, text_key=64, category=64, intent=64, labelled_by=192),
        one_of("sentiment", "Positive", "Neutral", "Negative", "Angry"),
        one_of("source", "correction", "import"),
        sa.CheckConstraint(
            "category IS NOT NULL OR sentiment IS NOT NULL OR intent IS NOT NULL", name="labelled"
        ),
        sa.CheckConstraint(
            "(source = 'correction') = (message_id IS NOT NULL)", name="source_message"
        ),
        sqlite_strict=True,
    )
    op.create_index(None, "learning_examples", ["updated_at", "id"])
    op.create_index(None, "learning_examples", ["text_key"])
    op.create_table(
        "golden_items",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("message_id", TEXT, nullable=True),
        sa.Column("text_key", TEXT, nullable=False),
        sa.Column("line", JSON, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("built", FLAG, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["message_id"], ["messages.id"], ondelete="CASCADE"),
        *at_most(id=128, text_key=64, source=500),
        sa.CheckConstraint("built IN (TRUE, FALSE)", name="built_truth"),
        sqlite_strict=True,
    )
    op.create_index(None, "golden_items", ["message_id"])
    op.create_index(None, "golden_items", ["source", "id"])


def downgrade() -> None:
    op.drop_table("golden_items")
    op.drop_table("learning_examples")

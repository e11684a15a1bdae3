"""Sentences of articles that wait for an administrator, and those articles as imported."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "202611241010"
down_revision = "202611240700"
branch_labels = None
depends_on = None

TEXT = sa.Text()
TIME = sa.Text().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


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
        "kb_originals",
        sa.Column("article_id", TEXT, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("question", TEXT, nullable=False),
        sa.Column("answer", TEXT, nullable=False),
        sa.Column("category", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("article_id"),
        *at_most(article_id=128, question=65_536, answer=65_536, category=64),
        sqlite_strict=True,
    )
    op.create_table(
        "kb_quarantine",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("article_id", TEXT, nullable=False),
        sa.Column("part", TEXT, nullable=False),
        sa.Column("sentence", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("decided_at", TIME, nullable=True),
        sa.Column("decided_by", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("article_id", "digest"),
        *at_most(id=128, article_id=128, sentence=65_536, digest=64, reason=64, decided_by=192),
        one_of("part", "question", "answer"),
        one_of("state", "held", "released", "removed"),
        sa.CheckConstraint("(decided_at IS NULL) = (decided_by IS NULL)", name="decided_whole"),
        sa.CheckConstraint("(decided_at IS NULL) = (state = 'held')", name="held_undecided"),
        sqlite_strict=True,
    )
    op.create_index(None, "kb_quarantine", ["state", "created_at", "id"])


def downgrade() -> None:
    op.drop_table("kb_quarantine")
    op.drop_table("kb_originals")

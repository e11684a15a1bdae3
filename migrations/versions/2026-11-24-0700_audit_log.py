"""The audit log, which the database itself lets grow and never change.

A trigger refuses every update and delete, whoever asks. SQLite's REPLACE would delete without
asking a trigger, so an id that is there cannot be written again; PostgreSQL's TRUNCATE has a
trigger of its own. A later migration that builds the table anew on SQLite has to make the triggers
again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "202611240700"
down_revision = "202611221000"
branch_labels = None
depends_on = None

TEXT = sa.Text()
TIME = sa.Text().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
JSON = sa.Text().with_variant(JSONB(), "postgresql")

REFUSAL = "The audit log is never changed."

SQLITE = tuple(
    f"CREATE TRIGGER audit_log_no_{name} BEFORE {event} BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    for name, event in (
        ("update", "UPDATE ON audit_log"),
        ("delete", "DELETE ON audit_log"),
        (
            "replace",
            "INSERT ON audit_log WHEN EXISTS (SELECT 1 FROM audit_log WHERE id = NEW.id)",
        ),
    )
)

POSTGRESQL = (
    "CREATE FUNCTION audit_log_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    f" RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'integrity_constraint_violation'; END $$",
    "CREATE TRIGGER audit_log_no_change BEFORE UPDATE OR DELETE ON audit_log"
    " FOR EACH ROW EXECUTE FUNCTION audit_log_refuse()",
    "CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log"
    " FOR EACH STATEMENT EXECUTE FUNCTION audit_log_refuse()",
)


def at_most(**limits: int) -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(f"length({name}) <= {limit}", name=f"{name}_length")
        for name, limit in limits.items()
    ]


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("details", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        *at_most(id=128, actor=192, action=64, target=500),
        sqlite_strict=True,
    )
    op.create_index(None, "audit_log", ["created_at", "id"])
    op.create_index(None, "audit_log", ["action", "created_at", "id"])
    for statement in SQLITE if op.get_bind().dialect.name == "sqlite" else POSTGRESQL:
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("audit_log")  # its triggers go with it
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_log_refuse()")

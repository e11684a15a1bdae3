"""The answer records and the head of their chain.

Triggers let the database itself keep the chain: a record follows the head and moves it, is never
deleted, and changes only by losing its personal part and the salt together. SQLite's REPLACE would
delete without asking a trigger, so neither number nor message can be written again; PostgreSQL's
TRUNCATE has triggers of its own. A later migration that builds these tables anew on SQLite has to
make the triggers again.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "202611241040"
down_revision = "202611241010"
branch_labels = None
depends_on = None

TEXT = sa.Text()
NUMBER = sa.Integer()
TIME = sa.Text().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")

GENESIS = "0" * 64

KEPT = ("seq", "message_id", "conversation_id", "content", "personal_digest", "previous", "digest")
NOT_CHANGED = "An answer record is never changed."
NOT_NEXT = "An answer record follows the latest one."
NOT_MOVED = "The chain of answer records moves with a record only."

FOLLOWS = "EXISTS (SELECT 1 FROM answer_chain WHERE seq = NEW.seq - 1 AND digest = NEW.previous)"
WRITTEN = "EXISTS (SELECT 1 FROM answer_records WHERE message_id = NEW.message_id)"
MOVED = (
    "NEW.id = OLD.id AND NEW.began_at = OLD.began_at AND NEW.seq = OLD.seq + 1"
    " AND EXISTS (SELECT 1 FROM answer_records WHERE seq = NEW.seq AND digest = NEW.digest)"
)
MOVE = "UPDATE answer_chain SET seq = NEW.seq, digest = NEW.digest;"


def erases(same: str) -> str:
    kept = " AND ".join(f"NEW.{name} {same} OLD.{name}" for name in KEPT)
    return f"NEW.personal IS NULL AND NEW.salt IS NULL AND {kept}"


def sqlite() -> list[str]:
    refusals = (
        ("answer_records_no_delete", "DELETE ON answer_records", None, NOT_CHANGED),
        ("answer_records_erase_only", "UPDATE ON answer_records", erases("IS"), NOT_CHANGED),
        (
            "answer_records_next",
            "INSERT ON answer_records",
            f"{FOLLOWS} AND NOT {WRITTEN}",
            NOT_NEXT,
        ),
        ("answer_chain_no_delete", "DELETE ON answer_chain", None, NOT_MOVED),
        ("answer_chain_no_insert", "INSERT ON answer_chain", None, NOT_MOVED),
        ("answer_chain_moves", "UPDATE ON answer_chain", MOVED, NOT_MOVED),
    )
    return [
        f"CREATE TRIGGER {name} BEFORE {event}"
        + (f" WHEN NOT ({allowed})" if allowed else "")
        + f" BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
        for name, event, allowed, refusal in refusals
    ] + [f"CREATE TRIGGER answer_records_move AFTER INSERT ON answer_records BEGIN {MOVE} END"]


def postgresql() -> list[str]:
    functions = (
        ("answer_records_guard", NOT_CHANGED, erases("IS NOT DISTINCT FROM")),
        ("answer_records_follow", NOT_NEXT, FOLLOWS),
        ("answer_chain_guard", NOT_MOVED, MOVED),
    )
    made = [
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF TG_OP IN ('{'INSERT' if name == 'answer_records_follow' else 'UPDATE'}') THEN"
        f" IF {allowed} THEN RETURN NEW; END IF; END IF;"
        f" RAISE EXCEPTION '{refusal}' USING ERRCODE = 'integrity_constraint_violation'; END $$"
        for name, refusal, allowed in functions
    ]
    made.append(
        "CREATE FUNCTION answer_records_move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" {MOVE} RETURN NULL; END $$"
    )
    triggers = (
        (
            "answer_records_change",
            "BEFORE UPDATE OR DELETE ON answer_records",
            "answer_records_guard",
        ),
        ("answer_records_next", "BEFORE INSERT ON answer_records", "answer_records_follow"),
        ("answer_records_move", "AFTER INSERT ON answer_records", "answer_records_move"),
        (
            "answer_chain_change",
            "BEFORE INSERT OR UPDATE OR DELETE ON answer_chain",
            "answer_chain_guard",
        ),
    )
    made += [
        f"CREATE TRIGGER {name} {event} FOR EACH ROW EXECUTE FUNCTION {function}()"
        for name, event, function in triggers
    ]
    return made + [
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}"
        f" FOR EACH STATEMENT EXECUTE FUNCTION {table}_guard()"
        for table in ("answer_records", "answer_chain")
    ]


def at_most(**limits: int) -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(f"length({name}) <= {limit}", name=f"{name}_length")
        for name, limit in limits.items()
    ]


def upgrade() -> None:
    op.create_table(
        "answer_records",
        sa.Column("seq", NUMBER, autoincrement=False, nullable=False),
        sa.Column("message_id", TEXT, nullable=False),
        sa.Column("conversation_id", TEXT, nullable=False),
        sa.Column("content", TEXT, nullable=False),
        sa.Column("personal", TEXT, nullable=True),
        sa.Column("salt", TEXT, nullable=True),
        sa.Column("personal_digest", TEXT, nullable=False),
        sa.Column("previous", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("message_id"),
        sa.CheckConstraint("seq >= 1", name="seq_range"),
        sa.CheckConstraint("(personal IS NULL) = (salt IS NULL)", name="erased_whole"),
        *at_most(
            message_id=128, conversation_id=128, salt=64, personal_digest=64, previous=64, digest=64
        ),
        sqlite_strict=True,
    )
    op.create_index(None, "answer_records", ["conversation_id"])
    chain = op.create_table(
        "answer_chain",
        sa.Column("id", NUMBER, autoincrement=False, nullable=False),
        sa.Column("seq", NUMBER, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("began_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.CheckConstraint("id = 1", name="single_row"),
        *at_most(digest=64),
        sqlite_strict=True,
    )
    native = op.get_bind().dialect.name == "postgresql"
    now = datetime.now(UTC)
    began = now if native else now.isoformat(timespec="microseconds")
    op.bulk_insert(chain, [{"id": 1, "seq": 0, "digest": GENESIS, "began_at": began}])
    for statement in postgresql() if native else sqlite():
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("answer_records")  # its triggers go with it
    op.drop_table("answer_chain")
    if op.get_bind().dialect.name == "postgresql":
        for name in (
            "answer_records_guard",
            "answer_records_follow",
            "answer_records_move",
            "answer_chain_guard",
        ):
            op.execute(f"DROP FUNCTION {name}()")

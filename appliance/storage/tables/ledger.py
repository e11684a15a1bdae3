"""What only grows, so that it can be trusted later: the audit log and the answer records."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Integer, Table
from sqlalchemy import UniqueConstraint as Unique

from appliance.storage.tables.columns import (
    ID_CHARS,
    LINE_CHARS,
    WORD_CHARS,
    at_most,
    count,
    key,
    metadata,
    text,
    time,
)
from appliance.storage.types import Json

# Append-only: the migration's triggers refuse updates and deletes.
audit_log = Table(
    "audit_log",
    metadata,
    key(),
    time("created_at"),
    text("actor"),
    text("action"),
    text("target"),
    Column("details", Json, nullable=False),
    *at_most(id=ID_CHARS, actor=ID_CHARS + WORD_CHARS, action=WORD_CHARS, target=LINE_CHARS),
    Index(None, "created_at", "id"),
    Index(None, "action", "created_at", "id"),
    sqlite_strict=True,
)

# No foreign keys: a record outlives its conversation, without what it held of a person. The
# migration's triggers let records only grow and be erased, and move the head with each.
answer_records = Table(
    "answer_records",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    text("message_id"),
    text("conversation_id"),
    # As digested, to the byte; JSONB would write it anew.
    text("content"),
    text("personal", null=True),
    text("salt", null=True),
    text("personal_digest"),
    text("previous"),
    text("digest"),
    CheckConstraint("seq >= 1", name="seq_range"),
    CheckConstraint("(personal IS NULL) = (salt IS NULL)", name="erased_whole"),
    *at_most(
        message_id=ID_CHARS,
        conversation_id=ID_CHARS,
        salt=WORD_CHARS,
        personal_digest=WORD_CHARS,
        previous=WORD_CHARS,
        digest=WORD_CHARS,
    ),
    Unique("message_id"),
    Index(None, "conversation_id"),
    sqlite_strict=True,
)

answer_chain = Table(
    "answer_chain",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    count("seq"),
    text("digest"),
    time("began_at"),
    CheckConstraint("id = 1", name="single_row"),
    *at_most(digest=WORD_CHARS),
    sqlite_strict=True,
)

"""What processes leave for one another: who runs, what serves, which requests are under way."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Integer, Table

from appliance.storage.tables.columns import (
    CONTENT_CHARS,
    ID_CHARS,
    LINE_CHARS,
    WORD_CHARS,
    at_most,
    count,
    key,
    metadata,
    parent,
    text,
    time,
)

# One row for each worker that runs or ran lately: how others know that webhooks leave.
workers = Table(
    "workers",
    metadata,
    key(),
    text("host"),
    count("pid"),
    time("started_at"),
    time("seen_at"),
    *at_most(id=ID_CHARS, host=LINE_CHARS),
    sqlite_strict=True,
)

# What an API process last saw the engine serve; a switch is known by it.
served_model = Table(
    "served_model",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    text("model"),
    text("sha256", null=True),
    time("since"),
    CheckConstraint("id = 1", name="single_row"),
    *at_most(model=LINE_CHARS, sha256=WORD_CHARS),
    sqlite_strict=True,
)

# What came with an Idempotency-Key. The key itself is not kept, only its digest with the principal;
# an answer goes with the message or conversation that it tells of.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    key(),
    text("fingerprint"),
    text("holder"),
    time("lease_expires_at"),
    parent("message_id", "messages.id", on_delete="CASCADE", null=True),
    parent("conversation_id", "conversations.id", on_delete="CASCADE", null=True),
    count("status", null=True),
    text("body", null=True),
    time("created_at"),
    time("expires_at"),
    *at_most(id=WORD_CHARS, fingerprint=WORD_CHARS, holder=WORD_CHARS, body=CONTENT_CHARS),
    CheckConstraint("status BETWEEN 200 AND 299", name="status_range"),
    CheckConstraint("body IS NULL OR status IS NOT NULL", name="answer_whole"),
    Index(None, "expires_at"),
    Index(None, "message_id"),
    Index(None, "conversation_id"),
    sqlite_strict=True,
)

# When each process last wrote something: the proof that the database takes writes.
heartbeats = Table(
    "heartbeats",
    metadata,
    key(),
    time("at"),
    *at_most(id=WORD_CHARS),
    sqlite_strict=True,
)

"""What people say of messages, and the desk's own golden set."""

from __future__ import annotations

from typing import get_args

from sqlalchemy import CheckConstraint, Column, Index, Table
from sqlalchemy import UniqueConstraint as Unique

from appliance.domain import policy
from appliance.domain.examples import ExampleSource
from appliance.storage.tables.columns import (
    CONTENT_CHARS,
    ID_CHARS,
    LINE_CHARS,
    WORD_CHARS,
    at_most,
    key,
    metadata,
    one_of,
    parent,
    text,
    time,
    truth,
)
from appliance.storage.types import Flag, Json

# What people say of messages. An import has no message; a correction goes with its own.
learning_examples = Table(
    "learning_examples",
    metadata,
    key(),
    parent("message_id", "messages.id", on_delete="CASCADE", null=True),
    text("text"),
    text("text_key"),
    text("category", null=True),
    text("sentiment", null=True),
    text("intent", null=True),
    text("source"),
    text("labelled_by"),
    time("created_at"),
    time("updated_at"),
    *at_most(
        id=ID_CHARS,
        text=CONTENT_CHARS,
        text_key=WORD_CHARS,
        category=WORD_CHARS,
        intent=WORD_CHARS,
        labelled_by=ID_CHARS + WORD_CHARS,
    ),
    one_of("sentiment", policy.SENTIMENTS),
    one_of("source", get_args(ExampleSource)),
    CheckConstraint(
        "category IS NOT NULL OR sentiment IS NOT NULL OR intent IS NOT NULL", name="labelled"
    ),
    CheckConstraint("(source = 'correction') = (message_id IS NOT NULL)", name="source_message"),
    Unique("message_id"),
    Index(None, "updated_at", "id"),
    Index(None, "text_key"),
    sqlite_strict=True,
)

# ``line`` is an evaluation line; what was built from a conversation goes with it.
golden_items = Table(
    "golden_items",
    metadata,
    key(),
    parent("message_id", "messages.id", on_delete="CASCADE", null=True),
    text("text_key"),
    Column("line", Json, nullable=False),
    text("source"),
    Column("built", Flag, nullable=False),
    time("created_at"),
    *at_most(id=ID_CHARS, text_key=WORD_CHARS, source=LINE_CHARS),
    truth("built"),
    Index(None, "message_id"),
    Index(None, "source", "id"),
    sqlite_strict=True,
)

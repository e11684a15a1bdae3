"""Articles, what is kept out of them, and their version."""

from __future__ import annotations

from typing import get_args

from sqlalchemy import CheckConstraint, Column, Index, Integer, Table, Text
from sqlalchemy import UniqueConstraint as Unique

from appliance.domain import policy
from appliance.storage.tables.columns import (
    CONTENT_CHARS,
    ID_CHARS,
    WORD_CHARS,
    at_most,
    count,
    key,
    metadata,
    one_of,
    text,
    time,
)

knowledge_entries = Table(
    "knowledge_entries",
    metadata,
    key(),
    count("position"),
    text("question"),
    text("answer"),
    text("category"),
    time("created_at"),
    time("updated_at"),
    *at_most(id=ID_CHARS, question=CONTENT_CHARS, answer=CONTENT_CHARS, category=WORD_CHARS),
    Index(None, "position"),
    sqlite_strict=True,
)

UNPLACED = -1
"""Position of an article that has none yet."""

# Articles as they were imported, of those of which a sentence is kept out of knowledge_entries.
kb_originals = Table(
    "kb_originals",
    metadata,
    Column("article_id", Text, primary_key=True),
    count("position"),
    text("question"),
    text("answer"),
    text("category"),
    *at_most(
        article_id=ID_CHARS, question=CONTENT_CHARS, answer=CONTENT_CHARS, category=WORD_CHARS
    ),
    sqlite_strict=True,
)

# No foreign key: a decision outlives the article, and an article may be withheld whole.
kb_quarantine = Table(
    "kb_quarantine",
    metadata,
    key(),
    text("article_id"),
    text("part"),
    text("sentence"),
    text("digest"),
    text("reason"),
    text("state"),
    time("created_at"),
    time("decided_at", null=True),
    text("decided_by", null=True),
    *at_most(
        id=ID_CHARS,
        article_id=ID_CHARS,
        sentence=CONTENT_CHARS,
        digest=WORD_CHARS,
        reason=WORD_CHARS,
        decided_by=ID_CHARS + WORD_CHARS,
    ),
    one_of("part", get_args(policy.ArticlePart)),
    one_of("state", get_args(policy.QuarantineState)),
    CheckConstraint("(decided_at IS NULL) = (decided_by IS NULL)", name="decided_whole"),
    CheckConstraint("(decided_at IS NULL) = (state = 'held')", name="held_undecided"),
    Unique("article_id", "digest"),
    Index(None, "state", "created_at", "id"),
    sqlite_strict=True,
)

knowledge_state = Table(
    "knowledge_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    count("version"),
    text("digest"),
    time("updated_at"),
    CheckConstraint("id = 1", name="single_row"),
    *at_most(digest=WORD_CHARS),
    sqlite_strict=True,
)

"""What customers and the desk say to each other, what was thought of it, and its events."""

from __future__ import annotations

from typing import get_args

from sqlalchemy import CheckConstraint, Column, Index, Table
from sqlalchemy import UniqueConstraint as Unique

from appliance.domain import policy
from appliance.domain.answer import Mode, Outcome
from appliance.domain.query import Speaker
from appliance.storage.records import ConversationStatus, MessageState, Rating
from appliance.storage.tables.columns import (
    CONTENT_CHARS,
    ID_CHARS,
    LINE_CHARS,
    WORD_CHARS,
    at_most,
    count,
    key,
    metadata,
    one_of,
    parent,
    text,
    time,
    truth,
    urgency,
)
from appliance.storage.types import Flag, Json

conversations = Table(
    "conversations",
    metadata,
    key(),
    parent("user_id", "users.id", on_delete=None),
    text("owner"),
    text("title"),
    text("status"),
    text("category", null=True),
    count("priority", null=True),
    text("topic_article_id", null=True),
    text("topic_question", null=True),
    count("attempts"),
    text("escalation_reason", null=True),
    text("case_reference", null=True),
    time("created_at"),
    time("updated_at"),
    *at_most(
        id=ID_CHARS,
        owner=ID_CHARS + WORD_CHARS,
        title=LINE_CHARS,
        category=WORD_CHARS,
        topic_article_id=ID_CHARS,
        topic_question=CONTENT_CHARS,
        escalation_reason=WORD_CHARS,
        case_reference=WORD_CHARS,
    ),
    one_of("status", get_args(ConversationStatus)),
    urgency(),
    CheckConstraint("attempts >= 0", name="attempts_range"),
    Unique("case_reference"),
    # Lists run newest first; the id behind the time makes their order total, so that pages never
    # overlap.
    Index(None, "updated_at", "id"),
    Index(None, "user_id", "updated_at", "id"),
    Index(None, "owner", "updated_at", "id"),
    Index(None, "status", "updated_at", "id"),
    sqlite_strict=True,
)

messages = Table(
    "messages",
    metadata,
    key(),
    parent("conversation_id", "conversations.id", on_delete="CASCADE"),
    count("seq"),
    text("role"),
    text("content"),
    text("state"),
    parent("reply_to", "messages.id", on_delete="SET NULL", null=True),
    text("category", null=True),
    text("sentiment", null=True),
    count("priority", null=True),
    text("outcome", null=True),
    text("mode", null=True),
    Column("escalated", Flag, nullable=False),
    Column("details", Json, nullable=False),
    time("created_at"),
    *at_most(id=ID_CHARS, content=CONTENT_CHARS, category=WORD_CHARS),
    CheckConstraint("seq >= 1", name="seq_range"),
    one_of("role", get_args(Speaker)),
    one_of("state", get_args(MessageState)),
    one_of("sentiment", policy.SENTIMENTS),
    urgency(),
    one_of("outcome", get_args(Outcome)),
    one_of("mode", get_args(Mode)),
    truth("escalated"),
    Unique("conversation_id", "seq"),
    Index(None, "reply_to"),
    sqlite_strict=True,
)

feedback = Table(
    "feedback",
    metadata,
    key(),
    parent("message_id", "messages.id", on_delete="CASCADE"),
    parent("conversation_id", "conversations.id", on_delete="CASCADE"),
    text("rating"),
    text("comment", null=True),
    time("created_at"),
    time("updated_at"),
    *at_most(id=ID_CHARS, comment=policy.COMMENT_MAX_CHARS),
    one_of("rating", get_args(Rating)),
    Unique("message_id"),
    Index(None, "conversation_id"),
    sqlite_strict=True,
)

analytics_events = Table(
    "analytics_events",
    metadata,
    key(),
    text("type"),
    parent("conversation_id", "conversations.id", on_delete="SET NULL", null=True),
    text("user_id", null=True),
    Column("data", Json, nullable=False),
    time("created_at"),
    *at_most(id=ID_CHARS, type=WORD_CHARS, user_id=ID_CHARS),
    Index(None, "type", "created_at"),
    Index(None, "conversation_id"),
    sqlite_strict=True,
)

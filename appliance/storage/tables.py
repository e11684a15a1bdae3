"""Every table, once: what the repositories query and what the migrations are compared with.

The database itself refuses what the code must never write: unknown states, endless texts, orphans.
Of categories, escalation reasons and event types only the length is checked: a desk may have its
own one day.
"""

from __future__ import annotations

from typing import Any, get_args

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, MetaData, Table, Text
from sqlalchemy import UniqueConstraint as Unique

from appliance.domain import policy
from appliance.domain.answer import Mode, Outcome
from appliance.domain.examples import ExampleSource
from appliance.domain.query import Speaker
from appliance.storage.records import (
    ConversationStatus,
    DeliveryState,
    DisabledReason,
    MessageState,
    Rating,
)
from appliance.storage.types import Flag, Json, UtcDateTime

ID_CHARS = policy.ID_MAX_CHARS
WORD_CHARS = 64
LINE_CHARS = 500
CONTENT_CHARS = 65_536
"""Longest message or article; well above what a customer may send, for agents and imported
documents."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _at_most(**limits: int) -> list[CheckConstraint]:
    """Longest texts, in characters, by column."""
    return [
        CheckConstraint(f"length({name}) <= {limit}", name=f"{name}_length")
        for name, limit in limits.items()
    ]


def _one_of(name: str, values: tuple[str, ...]) -> CheckConstraint:
    known = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{name} IN ({known})", name=f"{name}_known")


def _truth(name: str) -> CheckConstraint:
    """TRUE and FALSE are 1 and 0 to SQLite, so one text serves both databases."""
    return CheckConstraint(f"{name} IN (TRUE, FALSE)", name=f"{name}_truth")


def _urgency() -> CheckConstraint:
    return CheckConstraint(
        f"priority BETWEEN {policy.PRIORITY_MIN} AND {policy.PRIORITY_MAX}", name="priority_range"
    )


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, Text, nullable=null)


def _time(name: str, *, null: bool = False) -> Column[Any]:
    return Column(name, UtcDateTime, nullable=null)


def _count(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, Integer, nullable=null)


def _key() -> Column[str]:
    return Column("id", Text, primary_key=True)


def _parent(name: str, target: str, *, on_delete: str | None, null: bool = False) -> Column[str]:
    return Column(name, Text, ForeignKey(target, ondelete=on_delete), nullable=null)


users = Table(
    "users",
    metadata,
    _key(),
    _text("name", null=True),
    _text("email", null=True),
    Column("vip", Flag, nullable=False),
    _time("created_at"),
    _time("updated_at"),
    *_at_most(id=ID_CHARS, name=LINE_CHARS, email=LINE_CHARS),
    _truth("vip"),
    sqlite_strict=True,
)

conversations = Table(
    "conversations",
    metadata,
    _key(),
    _parent("user_id", "users.id", on_delete=None),
    _text("owner"),
    _text("title"),
    _text("status"),
    _text("category", null=True),
    _count("priority", null=True),
    _text("topic_article_id", null=True),
    _text("topic_question", null=True),
    _count("attempts"),
    _text("escalation_reason", null=True),
    _text("case_reference", null=True),
    _time("created_at"),
    _time("updated_at"),
    *_at_most(
        id=ID_CHARS,
        owner=ID_CHARS + WORD_CHARS,
        title=LINE_CHARS,
        category=WORD_CHARS,
        topic_article_id=ID_CHARS,
        topic_question=CONTENT_CHARS,
        escalation_reason=WORD_CHARS,
        case_reference=WORD_CHARS,
    ),
    _one_of("status", get_args(ConversationStatus)),
    _urgency(),
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
    _key(),
    _parent("conversation_id", "conversations.id", on_delete="CASCADE"),
    _count("seq"),
    _text("role"),
    _text("content"),
    _text("state"),
    _parent("reply_to", "messages.id", on_delete="SET NULL", null=True),
    _text("category", null=True),
    _text("sentiment", null=True),
    _count("priority", null=True),
    _text("outcome", null=True),
    _text("mode", null=True),
    Column("escalated", Flag, nullable=False),
    Column("details", Json, nullable=False),
    _time("created_at"),
    *_at_most(id=ID_CHARS, content=CONTENT_CHARS, category=WORD_CHARS),
    CheckConstraint("seq >= 1", name="seq_range"),
    _one_of("role", get_args(Speaker)),
    _one_of("state", get_args(MessageState)),
    _one_of("sentiment", policy.SENTIMENTS),
    _urgency(),
    _one_of("outcome", get_args(Outcome)),
    _one_of("mode", get_args(Mode)),
    _truth("escalated"),
    Unique("conversation_id", "seq"),
    Index(None, "reply_to"),
    sqlite_strict=True,
)

feedback = Table(
    "feedback",
    metadata,
    _key(),
    _parent("message_id", "messages.id", on_delete="CASCADE"),
    _parent("conversation_id", "conversations.id", on_delete="CASCADE"),
    _text("rating"),
    _text("comment", null=True),
    _time("created_at"),
    _time("updated_at"),
    *_at_most(id=ID_CHARS, comment=policy.COMMENT_MAX_CHARS),
    _one_of("rating", get_args(Rating)),
    Unique("message_id"),
    Index(None, "conversation_id"),
    sqlite_strict=True,
)

analytics_events = Table(
    "analytics_events",
    metadata,
    _key(),
    _text("type"),
    _parent("conversation_id", "conversations.id", on_delete="SET NULL", null=True),
    _text("user_id", null=True),
    Column("data", Json, nullable=False),
    _time("created_at"),
    *_at_most(id=ID_CHARS, type=WORD_CHARS, user_id=ID_CHARS),
    Index(None, "type", "created_at"),
    Index(None, "conversation_id"),
    sqlite_strict=True,
)

knowledge_entries = Table(
    "knowledge_entries",
    metadata,
    _key(),
    _count("position"),
    _text("question"),
    _text("answer"),
    _text("category"),
    _time("created_at"),
    _time("updated_at"),
    *_at_most(id=ID_CHARS, question=CONTENT_CHARS, answer=CONTENT_CHARS, category=WORD_CHARS),
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
    _count("position"),
    _text("question"),
    _text("answer"),
    _text("category"),
    *_at_most(
        article_id=ID_CHARS, question=CONTENT_CHARS, answer=CONTENT_CHARS, category=WORD_CHARS
    ),
    sqlite_strict=True,
)

# No foreign key: a decision outlives the article, and an article may be withheld whole.
kb_quarantine = Table(
    "kb_quarantine",
    metadata,
    _key(),
    _text("article_id"),
    _text("part"),
    _text("sentence"),
    _text("digest"),
    _text("reason"),
    _text("state"),
    _time("created_at"),
    _time("decided_at", null=True),
    _text("decided_by", null=True),
    *_at_most(
        id=ID_CHARS,
        article_id=ID_CHARS,
        sentence=CONTENT_CHARS,
        digest=WORD_CHARS,
        reason=WORD_CHARS,
        decided_by=ID_CHARS + WORD_CHARS,
    ),
    _one_of("part", get_args(policy.ArticlePart)),
    _one_of("state", get_args(policy.QuarantineState)),
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
    _count("version"),
    _text("digest"),
    _time("updated_at"),
    CheckConstraint("id = 1", name="single_row"),
    *_at_most(digest=WORD_CHARS),
    sqlite_strict=True,
)

api_keys = Table(
    "api_keys",
    metadata,
    _key(),
    _text("name"),
    _text("role"),
    # No foreign key: a key may be cut for a customer who has not written yet.
    _text("user_id", null=True),
    _text("key_hash"),
    _time("created_at"),
    _time("expires_at", null=True),
    _time("last_used_at", null=True),
    _time("revoked_at", null=True),
    *_at_most(id=ID_CHARS, name=LINE_CHARS, user_id=ID_CHARS, key_hash=ID_CHARS),
    _one_of("role", policy.ROLES),
    Unique("key_hash"),
    sqlite_strict=True,
)

# Accounts are disabled, never deleted: the audit log names them for ever.
accounts = Table(
    "accounts",
    metadata,
    _key(),
    _text("username"),
    _text("name"),
    _text("role"),
    _text("password_hash"),
    _count("failures"),
    _time("locked_until", null=True),
    _time("created_at"),
    _time("password_changed_at"),
    _time("last_login_at", null=True),
    _time("disabled_at", null=True),
    *_at_most(id=ID_CHARS, username=WORD_CHARS, name=LINE_CHARS, password_hash=LINE_CHARS),
    _one_of("role", policy.STAFF_ROLES),
    CheckConstraint("failures >= 0", name="failures_range"),
    Unique("username"),
    sqlite_strict=True,
)

sessions = Table(
    "sessions",
    metadata,
    _key(),
    _text("token_hash"),
    _parent("account_id", "accounts.id", on_delete="CASCADE", null=True),
    # No foreign key: a session is worth what its key is at each request, and nothing without it.
    _text("key_id", null=True),
    _time("created_at"),
    _time("last_seen_at"),
    _time("expires_at"),
    *_at_most(id=ID_CHARS, token_hash=ID_CHARS, key_id=ID_CHARS),
    CheckConstraint("(account_id IS NULL) <> (key_id IS NULL)", name="one_bearer"),
    Unique("token_hash"),
    Index(None, "account_id"),
    Index(None, "expires_at"),
    sqlite_strict=True,
)

# Append-only: the migration's triggers refuse updates and deletes.
audit_log = Table(
    "audit_log",
    metadata,
    _key(),
    _time("created_at"),
    _text("actor"),
    _text("action"),
    _text("target"),
    Column("details", Json, nullable=False),
    *_at_most(id=ID_CHARS, actor=ID_CHARS + WORD_CHARS, action=WORD_CHARS, target=LINE_CHARS),
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
    _text("message_id"),
    _text("conversation_id"),
    # As digested, to the byte; JSONB would write it anew.
    _text("content"),
    _text("personal", null=True),
    _text("salt", null=True),
    _text("personal_digest"),
    _text("previous"),
    _text("digest"),
    CheckConstraint("seq >= 1", name="seq_range"),
    CheckConstraint("(personal IS NULL) = (salt IS NULL)", name="erased_whole"),
    *_at_most(
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
    _count("seq"),
    _text("digest"),
    _time("began_at"),
    CheckConstraint("id = 1", name="single_row"),
    *_at_most(digest=WORD_CHARS),
    sqlite_strict=True,
)

# What people say of messages. An import has no message; a correction goes with its own.
learning_examples = Table(
    "learning_examples",
    metadata,
    _key(),
    _parent("message_id", "messages.id", on_delete="CASCADE", null=True),
    _text("text"),
    _text("text_key"),
    _text("category", null=True),
    _text("sentiment", null=True),
    _text("intent", null=True),
    _text("source"),
    _text("labelled_by"),
    _time("created_at"),
    _time("updated_at"),
    *_at_most(
        id=ID_CHARS,
        text=CONTENT_CHARS,
        text_key=WORD_CHARS,
        category=WORD_CHARS,
        intent=WORD_CHARS,
        labelled_by=ID_CHARS + WORD_CHARS,
    ),
    _one_of("sentiment", policy.SENTIMENTS),
    _one_of("source", get_args(ExampleSource)),
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
    _key(),
    _parent("message_id", "messages.id", on_delete="CASCADE", null=True),
    _text("text_key"),
    Column("line", Json, nullable=False),
    _text("source"),
    Column("built", Flag, nullable=False),
    _time("created_at"),
    *_at_most(id=ID_CHARS, text_key=WORD_CHARS, source=LINE_CHARS),
    _truth("built"),
    Index(None, "message_id"),
    Index(None, "source", "id"),
    sqlite_strict=True,
)

# ``failing_since`` is the first failure since the last success; ``ca_pem`` certificates of whoever
# signed the receiver's own. Secrets are kept as the services seal them.
webhooks = Table(
    "webhooks",
    metadata,
    _key(),
    _text("url"),
    Column("events", Json, nullable=False),
    _text("description", null=True),
    _text("ca_pem", null=True),
    _text("secret"),
    # While a secret rotates, deliveries are signed with both until the older one expires.
    _text("previous_secret", null=True),
    _time("previous_secret_expires_at", null=True),
    Column("active", Flag, nullable=False),
    _text("disabled_reason", null=True),
    _time("disabled_at", null=True),
    _time("failing_since", null=True),
    _time("created_at"),
    _time("updated_at"),
    *_at_most(
        id=ID_CHARS,
        url=2_048,
        description=LINE_CHARS,
        ca_pem=CONTENT_CHARS,
        secret=LINE_CHARS,
        previous_secret=LINE_CHARS,
    ),
    _truth("active"),
    _one_of("disabled_reason", get_args(DisabledReason)),
    CheckConstraint("active = (disabled_reason IS NULL)", name="disabled_reason_told"),
    CheckConstraint("active = (disabled_at IS NULL)", name="disabled_at_told"),
    sqlite_strict=True,
)

# The outbox. ``body`` is what is signed and sent, to the byte. Without ``next_attempt_at`` a
# pending delivery is due whatever the clock says.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    _key(),
    _parent("webhook_id", "webhooks.id", on_delete="CASCADE"),
    _text("event_id"),
    _text("event_type"),
    _text("user_id", null=True),
    _text("body"),
    _text("state"),
    _count("attempts"),
    _count("failures"),
    _time("next_attempt_at", null=True),
    _text("lease_owner", null=True),
    _time("lease_expires_at", null=True),
    _count("response_status", null=True),
    _text("last_error", null=True),
    _time("created_at"),
    _time("finished_at", null=True),
    *_at_most(
        id=ID_CHARS,
        event_id=ID_CHARS,
        event_type=WORD_CHARS,
        user_id=ID_CHARS,
        body=CONTENT_CHARS,
        lease_owner=ID_CHARS,
        last_error=LINE_CHARS,
    ),
    _one_of("state", get_args(DeliveryState)),
    CheckConstraint("failures BETWEEN 0 AND attempts", name="failures_range"),
    CheckConstraint("(state = 'sending') = (lease_owner IS NOT NULL)", name="lease_owned"),
    CheckConstraint("(lease_owner IS NULL) = (lease_expires_at IS NULL)", name="lease_whole"),
    CheckConstraint(
        "(state IN ('delivered', 'dead')) = (finished_at IS NOT NULL)", name="finished_told"
    ),
    # In the order in which a webhook's deliveries are claimed.
    Index(None, "webhook_id", "state", "next_attempt_at", "created_at", "id"),
    Index(None, "state", "next_attempt_at"),
    Index(None, "created_at", "id"),
    Index(None, "event_id"),
    Index(None, "user_id"),
    sqlite_strict=True,
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    _key(),
    _parent("delivery_id", "webhook_deliveries.id", on_delete="CASCADE"),
    _count("number"),
    _time("started_at"),
    _count("duration_ms", null=True),
    _count("status", null=True),
    _text("error", null=True),
    _text("response", null=True),
    *_at_most(id=ID_CHARS, error=LINE_CHARS, response=policy.WEBHOOK_RESPONSE_KEPT),
    CheckConstraint("number >= 1", name="number_range"),
    CheckConstraint("status IS NOT NULL OR error IS NOT NULL", name="outcome_told"),
    Unique("delivery_id", "number"),
    sqlite_strict=True,
)

# One row for each worker that runs or ran lately: how others know that webhooks leave.
workers = Table(
    "workers",
    metadata,
    _key(),
    _text("host"),
    _count("pid"),
    _time("started_at"),
    _time("seen_at"),
    *_at_most(id=ID_CHARS, host=LINE_CHARS),
    sqlite_strict=True,
)

# What an API process last saw the engine serve; a switch is known by it.
served_model = Table(
    "served_model",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    _text("model"),
    _text("sha256", null=True),
    _time("since"),
    CheckConstraint("id = 1", name="single_row"),
    *_at_most(model=LINE_CHARS, sha256=WORD_CHARS),
    sqlite_strict=True,
)

# What came with an Idempotency-Key. The key itself is not kept, only its digest with the principal;
# an answer goes with the message or conversation that it tells of.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    _key(),
    _text("fingerprint"),
    _text("holder"),
    _time("lease_expires_at"),
    _parent("message_id", "messages.id", on_delete="CASCADE", null=True),
    _parent("conversation_id", "conversations.id", on_delete="CASCADE", null=True),
    _count("status", null=True),
    _text("body", null=True),
    _time("created_at"),
    _time("expires_at"),
    *_at_most(id=WORD_CHARS, fingerprint=WORD_CHARS, holder=WORD_CHARS, body=CONTENT_CHARS),
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
    _key(),
    _time("at"),
    *_at_most(id=WORD_CHARS),
    sqlite_strict=True,
)

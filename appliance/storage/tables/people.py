"""Customers, the people of the desk, and what lets either of them in."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Table
from sqlalchemy import UniqueConstraint as Unique

from appliance.domain import policy
from appliance.storage.tables.columns import (
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
)
from appliance.storage.types import Flag

users = Table(
    "users",
    metadata,
    key(),
    text("name", null=True),
    text("email", null=True),
    Column("vip", Flag, nullable=False),
    time("created_at"),
    time("updated_at"),
    *at_most(id=ID_CHARS, name=LINE_CHARS, email=LINE_CHARS),
    truth("vip"),
    sqlite_strict=True,
)

api_keys = Table(
    "api_keys",
    metadata,
    key(),
    text("name"),
    text("role"),
    # No foreign key: a key may be cut for a customer who has not written yet.
    text("user_id", null=True),
    text("key_hash"),
    time("created_at"),
    time("expires_at", null=True),
    time("last_used_at", null=True),
    time("revoked_at", null=True),
    *at_most(id=ID_CHARS, name=LINE_CHARS, user_id=ID_CHARS, key_hash=ID_CHARS),
    one_of("role", policy.ROLES),
    Unique("key_hash"),
    sqlite_strict=True,
)

# Accounts are disabled, never deleted: the audit log names them for ever.
accounts = Table(
    "accounts",
    metadata,
    key(),
    text("username"),
    text("name"),
    text("role"),
    text("password_hash"),
    count("failures"),
    time("locked_until", null=True),
    time("created_at"),
    time("password_changed_at"),
    time("last_login_at", null=True),
    time("disabled_at", null=True),
    *at_most(id=ID_CHARS, username=WORD_CHARS, name=LINE_CHARS, password_hash=LINE_CHARS),
    one_of("role", policy.STAFF_ROLES),
    CheckConstraint("failures >= 0", name="failures_range"),
    Unique("username"),
    sqlite_strict=True,
)

sessions = Table(
    "sessions",
    metadata,
    key(),
    text("token_hash"),
    parent("account_id", "accounts.id", on_delete="CASCADE", null=True),
    # No foreign key: a session is worth what its key is at each request, and nothing without it.
    text("key_id", null=True),
    time("created_at"),
    time("last_seen_at"),
    time("expires_at"),
    *at_most(id=ID_CHARS, token_hash=ID_CHARS, key_id=ID_CHARS),
    CheckConstraint("(account_id IS NULL) <> (key_id IS NULL)", name="one_bearer"),
    Unique("token_hash"),
    Index(None, "account_id"),
    Index(None, "expires_at"),
    sqlite_strict=True,
)

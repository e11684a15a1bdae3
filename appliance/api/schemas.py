"""Bodies of requests. Unknown fields are refused: a typo must not be ignored in silence."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from appliance.domain.policy import (
    COMMENT_MAX_CHARS,
    ID_MAX_CHARS,
    MESSAGE_MAX_CHARS,
    Category,
    Intent,
    Role,
    Sentiment,
    StaffRole,
)

SECRET_MAX_CHARS = 512

Identifier = Annotated[str, Meta(min_length=1, max_length=ID_MAX_CHARS)]
Secret = Annotated[str, Meta(min_length=1, max_length=SECRET_MAX_CHARS)]
"""A password or key as it is typed; what a good one is, is said by the service."""


class QueryRequest(Struct, forbid_unknown_fields=True):
    """A customer's message."""

    user_id: Identifier
    message: Annotated[str, Meta(min_length=1, max_length=MESSAGE_MAX_CHARS)]
    conversation_id: Identifier | None = None


class FeedbackRequest(Struct, forbid_unknown_fields=True):
    """A thumb on one of the desk's answers."""

    message_id: Identifier
    rating: Literal["up", "down"]
    comment: Annotated[str, Meta(max_length=COMMENT_MAX_CHARS)] | None = None


class EscalateRequest(Struct, forbid_unknown_fields=True):
    """Talk to a person; ``reason`` is the customer's own words."""

    reason: Annotated[str, Meta(max_length=COMMENT_MAX_CHARS)] | None = None


class CorrectionRequest(Struct, forbid_unknown_fields=True):
    """What a customer's message is; at least one of the three."""

    category: Category | None = None
    sentiment: Sentiment | None = None
    intent: Intent | None = None


class UserRequest(Struct, forbid_unknown_fields=True):
    """What the desk knows of a customer."""

    name: Annotated[str, Meta(max_length=200)] | None = None
    email: Annotated[str, Meta(max_length=320)] | None = None
    vip: bool = False


class LoginRequest(Struct, forbid_unknown_fields=True):
    """Username and password, or a key."""

    username: Identifier | None = None
    password: Secret | None = None
    key: Secret | None = None


class PasswordRequest(Struct, forbid_unknown_fields=True):
    """One's own password, the present and the new one."""

    present: Secret
    new: Secret


class NewPasswordRequest(Struct, forbid_unknown_fields=True):
    """A password for somebody else's account."""

    password: Secret


class AccountRequest(Struct, forbid_unknown_fields=True):
    """An account to be made."""

    username: Identifier
    role: StaffRole
    password: Secret
    name: Annotated[str, Meta(max_length=200)] = ""


class KeyRequest(Struct, forbid_unknown_fields=True):
    """A key to be made; ``user_id`` ties a customer's key to one customer."""

    role: Role
    name: Annotated[str, Meta(max_length=200)] = ""
    user_id: Identifier | None = None
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None

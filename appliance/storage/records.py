"""What repositories return: plain values, detached from the database, in the words of ``domain``.

A record's fields are the columns that are read; what must not travel, such as a key's hash, has no
field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict

from appliance.domain.answer import Mode, Outcome
from appliance.domain.examples import ExampleSource
from appliance.domain.policy import (
    ArticlePart,
    Category,
    EscalationReason,
    Intent,
    QuarantineReason,
    QuarantineState,
    Role,
    Sentiment,
    StaffRole,
)
from appliance.domain.query import Speaker

ConversationStatus = Literal["open", "escalated", "resolved"]

MessageState = Literal["received", "answered", "failed", "sent"]
"""A customer's message is received, then answered or failed; what the desk says is sent."""

Rating = Literal["up", "down"]


@dataclass(frozen=True, slots=True)
class User:
    """A customer, known by the id that the calling system gave."""

    id: str
    name: str | None
    email: str | None
    vip: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Conversation:
    """One matter a customer came with. ``owner`` is the key or visitor that may see it.

    ``category`` and ``priority`` (1 to 10) are those of the latest query, None before the first is
    analysed. ``updated_at`` moves with every message.
    """

    id: str
    user_id: str
    owner: str
    title: str
    status: ConversationStatus
    category: Category | None
    priority: int | None
    topic_article_id: str | None
    topic_question: str | None
    attempts: int
    escalation_reason: EscalationReason | None
    case_reference: str | None
    created_at: datetime
    updated_at: datetime


class ConversationChanges(TypedDict, total=False):
    """The fields of a conversation that may change; an absent key leaves the field alone."""

    title: str
    status: ConversationStatus
    category: Category | None
    priority: int | None
    topic_article_id: str | None
    topic_question: str | None
    attempts: int
    escalation_reason: EscalationReason | None
    case_reference: str | None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; ``seq`` counts from 1 without gaps.

    What the analysis found (``category`` to ``mode``) stands on the desk's reply; ``details`` is
    the rest of the answer's metadata as JSON. ``reply_to`` is the id of the message it answers.
    """

    id: str
    conversation_id: str
    seq: int
    role: Speaker
    content: str
    state: MessageState
    reply_to: str | None
    category: Category | None
    sentiment: Sentiment | None
    priority: int | None
    outcome: Outcome | None
    mode: Mode | None
    escalated: bool
    details: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a customer thought of one answer; a message has at most one, the latest."""

    id: str
    message_id: str
    conversation_id: str
    rating: Rating
    comment: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. ``user_id`` ties a customer's key to one customer."""

    id: str
    name: str
    role: Role
    user_id: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    def usable(self, at: datetime) -> bool:
        """Neither revoked nor expired at that moment."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody of the desk who signs in by password; the hash of it has no field here.

    ``failures`` counts wrong passwords since the last right one.
    """

    id: str
    username: str
    name: str
    role: StaffRole
    failures: int
    locked_until: datetime | None
    created_at: datetime
    password_changed_at: datetime
    last_login_at: datetime | None
    disabled_at: datetime | None

    def may_sign_in(self, at: datetime) -> bool:
        """Neither disabled nor locked at that moment."""
        return self.disabled_at is None and (self.locked_until is None or at >= self.locked_until)


@dataclass(frozen=True, slots=True)
class StaffSession:
    """A browser that is signed in, by an account or by a key."""

    id: str
    account_id: str | None
    key_id: str | None
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that was done: by whom, what, to what. ``action`` reads like ``remote.call``."""

    id: str
    created_at: datetime
    actor: str
    action: str
    target: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A sentence of an article that nobody sees before an administrator releases it.

    ``digest`` knows it again in a later import of the article; ``decided_by`` released or removed
    it.
    """

    id: str
    article_id: str
    part: ArticlePart
    sentence: str
    digest: str
    reason: QuarantineReason
    state: QuarantineState
    created_at: datetime
    decided_at: datetime | None
    decided_by: str | None


@dataclass(frozen=True, slots=True)
class LabelledMessage:
    """A message and what a person says of it; ``message_id`` is None for one from a file."""

    id: str
    message_id: str | None
    text: str
    category: Category | None
    sentiment: Sentiment | None
    intent: Intent | None
    source: ExampleSource
    labelled_by: str
    created_at: datetime
    updated_at: datetime


class Labels(TypedDict, total=False):
    """What a person says of a message; an absent key says nothing."""

    category: Category
    sentiment: Sentiment
    intent: Intent


@dataclass(frozen=True, slots=True)
class GoldenRow:
    """An item of the desk's own golden set; ``line`` is an evaluation line. ``built`` items are
    made anew with every building, the others were added by a person. ``text_key`` knows its text
    again."""

    id: str
    text_key: str
    line: Mapping[str, Any]
    source: str
    built: bool
    message_id: str | None = None


@dataclass(frozen=True, slots=True)
class OnceRow:
    """A request that came with an ``Idempotency-Key``.

    ``message_id`` is the customer's message that it brought. ``status`` and ``body`` are what was
    answered; a status without a body was carried out and cannot be told again. Until then
    ``holder`` works on it, or did when the lease ran out.
    """

    id: str
    fingerprint: str
    holder: str
    lease_expires_at: datetime
    message_id: str | None
    status: int | None
    body: str | None


@dataclass(frozen=True, slots=True)
class KnowledgeChange:
    """What saving articles did, in numbers of articles, and the version that is now in force.

    ``unchanged`` counts articles that were given and already stored word for word. ``quarantined``
    are the sentences of the given articles that wait for an administrator, ``withheld`` the ids of
    those articles that wait with them as a whole, ``cleaned`` of those that lost invisible
    characters.
    """

    added: int
    changed: int
    removed: int
    unchanged: int
    version: int
    quarantined: tuple[Quarantined, ...] = ()
    withheld: tuple[str, ...] = ()
    cleaned: tuple[str, ...] = ()


DeliveryState = Literal["pending", "sending", "delivered", "dead"]
"""Pending waits for its time; sending belongs to a worker until its lease ends; dead has used up
its attempts, or its webhook was disabled."""

DisabledReason = Literal["operator", "gone", "failing"]
"""An administrator switched it off; it answered 410; nothing but failures for days."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of events, without its secrets. ``events`` are the types it gets; ``ca_pem``
    certificates to trust beside the system's; ``failing_since`` the first failure since the last
    success."""

    id: str
    url: str
    events: Sequence[str]
    description: str | None
    ca_pem: str | None
    active: bool
    disabled_reason: DisabledReason | None
    disabled_at: datetime | None
    failing_since: datetime | None
    previous_secret_expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


class WebhookChanges(TypedDict, total=False):
    """The fields of a webhook that an administrator may change; an absent key leaves one alone."""

    url: str
    events: Sequence[str]
    description: str | None
    ca_pem: str | None
    active: bool


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What sending needs of a webhook. Secrets are as the services sealed them."""

    id: str
    url: str
    ca_pem: str | None
    active: bool
    failing_since: datetime | None
    secret: str
    previous_secret: str | None
    previous_secret_expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one webhook. ``attempts`` counts all of them; ``failures`` those
    since the delivery was last asked for. The latter two tell of the latest attempt."""

    id: str
    webhook_id: str
    event_id: str
    event_type: str
    body: str
    state: DeliveryState
    attempts: int
    failures: int
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    response_status: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to deliver; either an HTTP status or an error. ``response`` is the beginning of what
    the receiver said, None where nothing came."""

    number: int
    started_at: datetime
    duration_ms: int | None
    status: int | None
    error: str | None
    response: str | None


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker and its latest sign of life."""

    id: str
    host: str
    pid: int
    started_at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that serves, by the SHA-256 of its weights where the server tells it."""

    model: str
    sha256: str | None
    since: datetime


class Counts(TypedDict):
    """Totals: ``queries`` counts customers' messages, ``by_...`` and ``escalated`` the desk's
    answers."""

    queries: int
    by_category: dict[str, int]
    by_sentiment: dict[str, int]
    by_outcome: dict[str, int]
    by_mode: dict[str, int]
    escalated: int
    feedback: dict[Rating, int]
    conversations: dict[ConversationStatus, int]

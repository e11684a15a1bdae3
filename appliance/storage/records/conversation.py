"""What customers and the desk say to each other, and what was thought of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict

from appliance.domain.answer import Mode, Outcome
from appliance.domain.policy import Category, EscalationReason, Sentiment
from appliance.domain.query import Speaker

ConversationStatus = Literal["open", "escalated", "resolved"]

MessageState = Literal["received", "answered", "failed", "sent"]
"""A customer's message is received, then answered or failed; what the desk says is sent."""

Rating = Literal["up", "down"]


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

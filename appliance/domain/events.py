"""What happens at a desk that other systems may hear of, and the form in which they hear it.

A body is ``{"id", "type", "version", "timestamp", "data"}``. Data carries ids and what was
decided, never what a customer wrote: who needs the words reads them through the API with a key of
their own, so that a receiver's log holds no more than it must, and an erased conversation is
erased. Within a version fields are only ever added.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from appliance.domain.answer import Mode, Outcome
from appliance.domain.policy import Category, EscalationReason, Sentiment

EventType = Literal[
    "query.created",
    "response.generated",
    "conversation.escalated",
    "conversation.resolved",
    "feedback.received",
    "kb.updated",
    "model.switched",
    "webhook.disabled",
]

EVENTS: Final[tuple[EventType, ...]] = get_args(EventType)
"""What a webhook can subscribe to."""

TEST_EVENT: Final = "webhook.test"
"""What the test button sends, to one webhook, whatever it subscribes to."""

VERSION: Final = 1
"""Of every body's form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryCreated:
    """A customer's message came in and is stored."""

    conversation_id: str
    user_id: str
    message_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseGenerated:
    """The desk answered. ``message_id`` is the answer, ``reply_to`` the customer's message."""

    conversation_id: str
    user_id: str
    message_id: str
    reply_to: str
    category: Category
    sentiment: Sentiment
    priority: int
    outcome: Outcome
    mode: Mode
    escalated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationEscalated:
    """A conversation went to a person. What the latest query was found to be is null where there
    was none."""

    conversation_id: str
    user_id: str
    reason: EscalationReason
    case_reference: str
    category: Category | None
    sentiment: Sentiment | None
    priority: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationResolved:
    """The customer's matter is settled; ``by`` says who said so."""

    conversation_id: str
    user_id: str
    by: Literal["customer", "agent"]
    category: Category | None
    case_reference: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackReceived:
    """A thumb on an answer; ``commented`` says whether words came with it."""

    conversation_id: str
    user_id: str
    message_id: str
    rating: Literal["up", "down"]
    commented: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KnowledgeUpdated:
    """The articles changed. ``version`` counts the changes so far."""

    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSwitched:
    """Another model serves now. ``sha256`` is that of its weights, where the server tells."""

    model: str
    sha256: str | None
    previous: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookDisabled:
    """The appliance stopped delivering to a webhook: it is gone (410), or failed for days."""

    webhook_id: str
    reason: Literal["gone", "failing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTest:
    """Somebody pressed the test button."""

    webhook_id: str


DATA: Final[Mapping[str, type[Any]]] = {
    "query.created": QueryCreated,
    "response.generated": ResponseGenerated,
    "conversation.escalated": ConversationEscalated,
    "conversation.resolved": ConversationResolved,
    "feedback.received": FeedbackReceived,
    "kb.updated": KnowledgeUpdated,
    "model.switched": ModelSwitched,
    "webhook.disabled": WebhookDisabled,
    TEST_EVENT: WebhookTest,
}
"""The data of each type. Schemas are made from these, and every body is."""


def body(event_id: str, event_type: str, moment: datetime, data: Mapping[str, Any]) -> str:
    """The JSON text that is signed and sent; equal for every webhook and attempt.

    :param data: the fields of the type's class in ``DATA``; any other set of names is a TypeError.
    """
    document = {
        "id": event_id,
        "type": event_type,
        "version": VERSION,
        "timestamp": moment.astimezone(UTC).isoformat(),
        "data": asdict(DATA[event_type](**data)),
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

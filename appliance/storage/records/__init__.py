"""What repositories return: plain values, detached from the database, in the words of ``domain``.

A record's fields are the columns that are read; what must not travel, such as a key's hash, has no
field.
"""

from appliance.storage.records.conversation import (
    Conversation,
    ConversationChanges,
    ConversationStatus,
    Counts,
    Feedback,
    Message,
    MessageState,
    Rating,
)
from appliance.storage.records.knowledge import KnowledgeChange, Quarantined
from appliance.storage.records.learning import GoldenRow, LabelledMessage, Labels
from appliance.storage.records.ledger import AuditEntry
from appliance.storage.records.people import Account, ApiKey, StaffSession, User
from appliance.storage.records.process import OnceRow, ServedModel, Worker
from appliance.storage.records.webhook import (
    Attempt,
    Delivery,
    DeliveryState,
    DisabledReason,
    Endpoint,
    Webhook,
    WebhookChanges,
)

__all__ = [
    "Account",
    "ApiKey",
    "Attempt",
    "AuditEntry",
    "Conversation",
    "ConversationChanges",
    "ConversationStatus",
    "Counts",
    "Delivery",
    "DeliveryState",
    "DisabledReason",
    "Endpoint",
    "Feedback",
    "GoldenRow",
    "KnowledgeChange",
    "LabelledMessage",
    "Labels",
    "Message",
    "MessageState",
    "OnceRow",
    "Quarantined",
    "Rating",
    "ServedModel",
    "StaffSession",
    "User",
    "Webhook",
    "WebhookChanges",
    "Worker",
]

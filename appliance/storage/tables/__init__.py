"""Every table, once: what the repositories query and what the migrations are compared with.

The database itself refuses what the code must never write: unknown states, endless texts, orphans.
Of categories, escalation reasons and event types only the length is checked: a desk may have its
own one day.

Import from here, not from the modules: a key names another table by its name, so that the metadata
is only whole when all of them are loaded.
"""

from appliance.storage.tables.columns import CONTENT_CHARS, metadata
from appliance.storage.tables.conversation import (
    analytics_events,
    conversations,
    feedback,
    messages,
)
from appliance.storage.tables.knowledge import (
    UNPLACED,
    kb_originals,
    kb_quarantine,
    knowledge_entries,
    knowledge_state,
)
from appliance.storage.tables.learning import golden_items, learning_examples
from appliance.storage.tables.ledger import answer_chain, answer_records, audit_log
from appliance.storage.tables.people import accounts, api_keys, sessions, users
from appliance.storage.tables.process import heartbeats, idempotency_keys, served_model, workers
from appliance.storage.tables.webhook import webhook_attempts, webhook_deliveries, webhooks

__all__ = [
    "CONTENT_CHARS",
    "UNPLACED",
    "accounts",
    "analytics_events",
    "answer_chain",
    "answer_records",
    "api_keys",
    "audit_log",
    "conversations",
    "feedback",
    "golden_items",
    "heartbeats",
    "idempotency_keys",
    "kb_originals",
    "kb_quarantine",
    "knowledge_entries",
    "knowledge_state",
    "learning_examples",
    "messages",
    "metadata",
    "served_model",
    "sessions",
    "users",
    "webhook_attempts",
    "webhook_deliveries",
    "webhooks",
    "workers",
]

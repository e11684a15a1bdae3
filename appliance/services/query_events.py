"""What the rest of the world hears of a query: events, stored with the change that they tell of."""

from __future__ import annotations

from appliance.domain.policy import EscalationReason
from appliance.storage.database import Records
from appliance.storage.records import Conversation, Message


def created(records: Records, conversation: Conversation, message: Message) -> None:
    """A customer's message was stored."""
    records.events.add(
        "query.created",
        conversation_id=conversation.id,
        user_id=conversation.user_id,
        data={"message_id": message.id},
    )


def answered(
    records: Records,
    reply: Message,
    before: Conversation,
    after: Conversation,
    reason: EscalationReason | None,
) -> None:
    """An answer was stored, and with it the conversation may have been escalated or resolved.

    :param reason: why this very answer hands over, if it does.
    """
    records.events.add(
        "response.generated",
        conversation_id=before.id,
        user_id=before.user_id,
        data={
            "message_id": reply.id,
            "reply_to": reply.reply_to,
            "category": reply.category,
            "sentiment": reply.sentiment,
            "priority": reply.priority,
            "outcome": reply.outcome,
            "mode": reply.mode,
            "escalated": reply.escalated,
        },
    )
    if reply.escalated and before.status != "escalated":
        records.events.add(
            "conversation.escalated",
            conversation_id=before.id,
            user_id=before.user_id,
            data={
                "reason": reason,
                "case_reference": after.case_reference,
                "category": reply.category,
                "sentiment": reply.sentiment,
                "priority": reply.priority,
            },
        )
    if after.status == "resolved" and before.status != "resolved":
        records.events.add(
            "conversation.resolved",
            conversation_id=before.id,
            user_id=before.user_id,
            data={
                "by": "customer",
                "category": after.category,
                "case_reference": after.case_reference,
            },
        )

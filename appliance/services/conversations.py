"""Conversations as customers and desk agents see them: lists, messages, handing over, thumbs."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal

from appliance.answering import wording
from appliance.domain import policy
from appliance.domain.redaction import SECRETS, redact
from appliance.domain.text import clean
from appliance.errors import Conflict, InvalidInput, NotFound
from appliance.services.access import Principal
from appliance.storage.database import Database, Records
from appliance.storage.records import (
    Conversation,
    ConversationStatus,
    Feedback,
    Message,
    Rating,
)

PAGE_MAX = 100

ShownState = Literal["received", "answered", "interrupted", "sent"]


@dataclass(frozen=True, slots=True)
class ShownConversation:
    """A conversation as its readers see it; which key began it is the desk's own business."""

    id: str
    user_id: str
    title: str
    status: ConversationStatus
    category: str | None
    priority: int | None
    escalation_reason: str | None
    case_reference: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """A message as its readers see it. Citations and passages stand on the desk's answers."""

    id: str
    role: str
    content: str
    state: ShownState
    created_at: datetime
    category: str | None
    sentiment: str | None
    priority: int | None
    outcome: str | None
    mode: str | None
    escalated: bool
    citations: list[dict[str, Any]]
    kb_results: list[dict[str, Any]]
    rating: Rating | None
    remote: bool = False
    """Whether words of it were written on another machine."""


@dataclass(frozen=True, slots=True)
class Handoff:
    """What a customer is told who asked for a person."""

    conversation_id: str
    case_reference: str
    response: str
    message_id: str


class Conversations:
    """Reads and changes conversations on behalf of a principal; what they may not see does not
    exist."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        principal: Principal,
        *,
        limit: int,
        status: ConversationStatus | None = None,
        user_id: str | None = None,
    ) -> list[ShownConversation]:
        """Latest updated first. A customer's list holds their own ones whatever ``user_id``
        says."""
        limit = max(1, min(limit, PAGE_MAX))
        owner = None
        if principal.role == "customer":
            if principal.user_id is not None:
                user_id = principal.user_id
            else:
                owner = principal.owner
        found = await self._database.read(
            lambda records: records.conversations.list(
                owner=owner, user_id=user_id, status=status, limit=limit
            )
        )
        return [_shown_conversation(conversation) for conversation in found]

    async def get(self, principal: Principal, conversation_id: str) -> ShownConversation:
        """:raises NotFound: unknown, or somebody else's."""
        return _shown_conversation(
            await self._database.read(lambda records: _visible(records, principal, conversation_id))
        )

    async def messages(self, principal: Principal, conversation_id: str) -> list[ShownMessage]:
        """The whole conversation, oldest first.

        :raises NotFound: unknown, or somebody else's.
        """

        def work(records: Records) -> list[ShownMessage]:
            _visible(records, principal, conversation_id)
            ratings = records.feedback.for_conversation(conversation_id)
            now = datetime.now(UTC)
            return [
                _shown(message, ratings.get(message.id), now)
                for message in records.messages.list(conversation_id)
            ]

        return await self._database.read(work)

    async def escalate(
        self, principal: Principal, conversation_id: str, reason: str | None
    ) -> Handoff:
        """Hand over on the customer's request. Asking again repeats the handoff already given.

        :param reason: the customer's own words, stored as a message of theirs.
        :raises NotFound: unknown, or somebody else's.
        :raises InvalidInput: the reason is too long.
        """
        kept = redact(clean(reason or ""), SECRETS)
        words = kept.text
        if len(words) > policy.COMMENT_MAX_CHARS:
            raise InvalidInput(f"A reason has at most {policy.COMMENT_MAX_CHARS} characters.")
        reference = case_reference(conversation_id)
        response = wording.handoff("requested", reference, ())
        if kept.counts:
            response = f"{wording.removed(kept.counts)}\n\n{response}"

        def work(records: Records) -> Handoff:
            conversation = _visible(records, principal, conversation_id, lock=True)
            if words:
                records.messages.add(conversation_id, "customer", words, "answered")
            elif conversation.status == "escalated":
                for message in reversed(records.messages.list(conversation_id)):
                    if message.escalated:
                        return Handoff(conversation_id, reference, message.content, message.id)
            reply = records.messages.add(
                conversation_id,
                "assistant",
                response,
                "sent",
                outcome="handoff",
                mode="none",
                escalated=True,
            )
            if conversation.status != "escalated":
                records.conversations.update(
                    conversation_id,
                    status="escalated",
                    escalation_reason="requested",
                    case_reference=reference,
                )
                records.events.add(
                    "conversation.escalated",
                    conversation_id=conversation_id,
                    user_id=conversation.user_id,
                    data={
                        "reason": "requested",
                        "case_reference": reference,
                        "category": conversation.category,
                        "sentiment": None,
                        "priority": conversation.priority,
                    },
                )
            return Handoff(conversation_id, reference, reply.content, reply.id)

        return await self._database.answer(work)

    async def rate(
        self, principal: Principal, message_id: str, rating: Rating, comment: str | None
    ) -> Feedback:
        """Store a thumb on one of the desk's answers; a second one replaces the first.

        :raises NotFound: no such message, or it stands in somebody else's conversation.
        :raises Conflict: the message is the customer's own.
        """
        words = redact(clean(comment or ""), SECRETS).text or None
        if words is not None and len(words) > policy.COMMENT_MAX_CHARS:
            raise InvalidInput(f"A comment has at most {policy.COMMENT_MAX_CHARS} characters.")

        def work(records: Records) -> Feedback:
            message = records.messages.get(message_id)
            if message is None:
                raise NotFound("There is no such message.")
            conversation = records.conversations.get(message.conversation_id)
            if conversation is None or not principal.sees(conversation):
                # In the same words: an id must not tell whether somebody else's message has it.
                raise NotFound("There is no such message.")
            if message.role == "customer":
                raise Conflict("Only the desk's answers can be rated.")
            records.events.add(
                "feedback.received",
                conversation_id=conversation.id,
                user_id=conversation.user_id,
                data={
                    "message_id": message_id,
                    "rating": rating,
                    "commented": words is not None,
                },
            )
            return records.feedback.put(message_id, conversation.id, rating, words)

        return await self._database.answer(work)


def case_reference(conversation_id: str) -> str:
    """What people call an escalated conversation; short enough to read out on the telephone."""
    digest = hashlib.sha256(conversation_id.encode()).digest()
    return f"CASE-{base64.b32encode(digest)[:10].decode()}"


def _visible(
    records: Records, principal: Principal, conversation_id: str, *, lock: bool = False
) -> Conversation:
    conversation = records.conversations.get(conversation_id, lock=lock)
    if conversation is None or not principal.sees(conversation):
        raise NotFound("There is no such conversation.")
    return conversation


def _shown_conversation(conversation: Conversation) -> ShownConversation:
    return ShownConversation(
        **{field.name: getattr(conversation, field.name) for field in fields(ShownConversation)}
    )


def _shown(message: Message, feedback: Feedback | None, now: datetime) -> ShownMessage:
    return ShownMessage(
        id=message.id,
        role=message.role,
        content=message.content,
        state=_shown_state(message, now),
        created_at=message.created_at,
        category=message.category,
        sentiment=message.sentiment,
        priority=message.priority,
        outcome=message.outcome,
        mode=message.mode,
        escalated=message.escalated,
        citations=list(message.details.get("citations", ())),
        kb_results=list(message.details.get("kb_results", ())),
        rating=feedback.rating if feedback else None,
        remote=bool(message.details.get("remote")),
    )


def _shown_state(message: Message, now: datetime) -> ShownState:
    """A message that nobody can be answering any more was interrupted, whatever process died over
    it."""
    if message.state == "failed":
        return "interrupted"
    if message.state == "received":
        age = (now - message.created_at).total_seconds()
        return "interrupted" if age > policy.QUERY_DEADLINE_SECONDS else "received"
    return message.state

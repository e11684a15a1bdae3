"""Conversations, their messages, handing over, thumbs."""

from __future__ import annotations

from typing import Annotated, Literal

from litestar import Controller, get, post
from litestar.params import FromPath, FromQuery, JSONBody, Parameter
from msgspec import Struct

from appliance.api.auth import Caller, Desk
from appliance.api.problems import documented
from appliance.api.schemas import EscalateRequest, FeedbackRequest
from appliance.domain.policy import ID_MAX_CHARS
from appliance.services.conversations import (
    PAGE_MAX,
    Handoff,
    ShownConversation,
    ShownMessage,
)
from appliance.storage.records import Feedback

Limit = Annotated[int, Parameter(ge=1, le=PAGE_MAX)]
Id = Annotated[str | None, Parameter(min_length=1, max_length=ID_MAX_CHARS)]


class ConversationPage(Struct):
    """Conversations, latest updated first."""

    items: list[ShownConversation]


class MessagePage(Struct):
    """A conversation's messages, oldest first."""

    items: list[ShownMessage]


class ConversationController(Controller):
    """A customer's own conversations; all of them for agents and admins."""

    path = "/conversations"
    tags = ("Conversations",)

    @get(responses=documented(400, 401))
    async def list_conversations(
        self,
        principal: Caller,
        appliance: Desk,
        limit: Limit = 20,
        status: FromQuery[Literal["open", "escalated", "resolved"] | None] = None,
        user_id: Id = None,
    ) -> ConversationPage:
        """List conversations, latest updated first."""
        return ConversationPage(
            await appliance.conversations.page(
                principal, limit=limit, status=status, user_id=user_id
            )
        )

    @get("/{conversation_id:str}", responses=documented(400, 401, 404))
    async def get_conversation(
        self, conversation_id: FromPath[str], principal: Caller, appliance: Desk
    ) -> ShownConversation:
        """One conversation."""
        return await appliance.conversations.get(principal, conversation_id)

    @get("/{conversation_id:str}/messages", responses=documented(400, 401, 404))
    async def list_messages(
        self, conversation_id: FromPath[str], principal: Caller, appliance: Desk
    ) -> MessagePage:
        """The messages of a conversation, oldest first."""
        return MessagePage(await appliance.conversations.messages(principal, conversation_id))

    @post(
        "/{conversation_id:str}/escalate",
        status_code=200,
        responses=documented(400, 401, 403, 404, 413, 429),
    )
    async def escalate(
        self,
        conversation_id: FromPath[str],
        principal: Caller,
        appliance: Desk,
        data: JSONBody[EscalateRequest | None] = None,
    ) -> Handoff:
        """Talk to a person."""
        reason = data.reason if data else None
        return await appliance.conversations.escalate(principal, conversation_id, reason)


class FeedbackController(Controller):
    """Thumbs."""

    path = "/feedback"
    tags = ("Feedback",)

    @post(responses=documented(400, 401, 403, 404, 409, 413, 429))
    async def give_feedback(
        self, data: JSONBody[FeedbackRequest], principal: Caller, appliance: Desk
    ) -> Feedback:
        """Rate one of the desk's answers; a second rating replaces the first."""
        return await appliance.conversations.rate(
            principal, data.message_id, data.rating, data.comment
        )

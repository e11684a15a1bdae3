"""Conversations: whose they are, how they stand, what they are about."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Unpack

from sqlalchemy import delete, insert, literal, select, tuple_, update

from appliance.errors import NotFound
from appliance.storage.records import Conversation, ConversationChanges, ConversationStatus
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import conversations
from appliance.storage.types import UtcDateTime, new_id, utc_now

_COLUMNS = columns_for(Conversation, conversations)
_c = conversations.c


class ConversationRepository(Repository):
    """Conversations by id, by who may see them, by state."""

    def create(self, user_id: str, owner: str, title: str) -> Conversation:
        """An open conversation of an existing user (else Conflict)."""
        now = utc_now()
        statement = insert(conversations).values(
            id=new_id(),
            user_id=user_id,
            owner=owner,
            title=title,
            status="open",
            attempts=0,
            created_at=now,
            updated_at=now,
        )
        return self._one(Conversation, statement.returning(*_COLUMNS))

    def get(self, conversation_id: str, *, lock: bool = False) -> Conversation | None:
        """The conversation, or None.

        :param lock: hold its row until the transaction ends, for decisions that read before they
            write. SQLite needs none: there a writing transaction is alone.
        """
        statement = select(*_COLUMNS).where(_c.id == conversation_id)
        return self._first(Conversation, statement.with_for_update() if lock else statement)

    def list(
        self,
        *,
        owner: str | None = None,
        user_id: str | None = None,
        status: ConversationStatus | None = None,
        limit: int,
        before: tuple[datetime, str] | None = None,
    ) -> Sequence[Conversation]:
        """Latest updated first, of those that match every filter given.

        :param before: ``(updated_at, id)`` of the last one on the page before.
        """
        statement = select(*_COLUMNS).order_by(_c.updated_at.desc(), _c.id.desc()).limit(limit)
        for column, wanted in ((_c.owner, owner), (_c.user_id, user_id), (_c.status, status)):
            if wanted is not None:
                statement = statement.where(column == wanted)
        if before is not None:
            updated_at, last_id = before
            mark = tuple_(literal(updated_at, UtcDateTime), literal(last_id))
            statement = statement.where(tuple_(_c.updated_at, _c.id) < mark)
        return self._all(Conversation, statement)

    def update(self, conversation_id: str, **changes: Unpack[ConversationChanges]) -> Conversation:
        """Set the fields given, and mark the conversation as updated now.

        :raises NotFound: there is no such conversation.
        """
        changed = update(conversations).where(_c.id == conversation_id)
        statement = changed.values(**changes, updated_at=utc_now()).returning(*_COLUMNS)
        conversation = self._first(Conversation, statement)
        if conversation is None:
            raise NotFound("There is no such conversation.")
        return conversation

    def delete_of(self, user_id: str) -> int:
        """Delete a user's conversations with their messages and feedback; return how many there
        were. What their answer records hold is erased before, or verifying misses the messages."""
        statement = delete(conversations).where(_c.user_id == user_id)
        return self._connection.execute(statement).rowcount

    def unresolved_articles(
        self, user_id: str, since: datetime, excluding: str | None
    ) -> frozenset[str]:
        """Ids of the articles that the user's other conversations, unresolved and updated since,
        are on."""
        statement = select(_c.topic_article_id).where(
            _c.user_id == user_id,
            _c.topic_article_id.is_not(None),
            _c.status != "resolved",
            _c.updated_at >= since,
        )
        if excluding is not None:
            statement = statement.where(_c.id != excluding)
        return frozenset(self._connection.scalars(statement))

"""What a message is understood by: what was said before it, what it is about, who asks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from appliance.domain import policy
from appliance.domain.query import Query, Topic, Turn
from appliance.errors import NotFound
from appliance.services.conversations import case_reference
from appliance.storage.database import Records
from appliance.storage.records import Conversation, Message


def in_context(records: Records, conversation: Conversation, message: Message) -> Query:
    """A message with its context as it is now that its turn has come.

    :param conversation: as it was when the message was stored.
    :raises NotFound: it is not there any more.
    """
    user = records.users.get(conversation.user_id)
    now = records.conversations.get(conversation.id)
    if now is None or user is None:
        raise NotFound("The conversation was deleted meanwhile.")
    turns = [
        turn
        for turn in records.messages.list(now.id)
        if turn.seq < message.seq or turn.role != "customer"
    ]
    since = datetime.now(UTC) - timedelta(days=policy.REPEAT_WINDOW_DAYS)
    topic = None
    if now.topic_question is not None:
        topic = Topic(now.topic_article_id, now.topic_question, now.attempts)
    return Query(
        text=message.content,
        user_id=user.id,
        case_reference=case_reference(now.id),
        history=tuple(Turn(turn.role, turn.content) for turn in turns[-policy.HISTORY_TURNS :]),
        topic=topic,
        vip=user.vip,
        recent_articles=records.conversations.unresolved_articles(user.id, since, now.id),
        removed=tuple(message.details.get("removed", ())),
    )

"""What a conversation is about, and how often the desk has tried: a pure function from turn to
turn."""

from __future__ import annotations

import re

from appliance.domain.policy import NEW_TOPIC, SAME_QUESTION, Intent
from appliance.domain.query import Topic

_FAILURE = re.compile(
    r"""
    \bstill\b.{0,40}
        \b(?:not|no|\w+n['’]t|nothing|same|fail\w*|crash\w*|broken|stuck|wrong|error|hangs?)\b
  | \b(?:did|does|do|has|have|is|was)(?:\s+not|n['’]?t)\s+(?:\w+\s+)?
        (?:work\w*|help\w*|solve\w*|fix\w*|change\w*)\b
  | \b(?:not|isn['’]?t)\s+working\b
  | \bno\s+(?:luck|change|difference|effect|success)\b
  | \bsame\s+(?:error|problem|thing|result|issue)\b
  | \b(?:already|just)\s+(?:tried|did|done)\b
  | \btried\s+(?:that|this|it|all|everything)\b
  | \bto\s+no\s+avail\b
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


def reports_failure(text: str, intent: Intent) -> bool:
    """Whether a later message says that what the desk suggested did not help."""
    return intent == "failure" or (intent != "confirmation" and _FAILURE.search(text) is not None)


def next_topic(
    topic: Topic | None, *, text: str, intent: Intent, article_id: str | None, similarity: float
) -> Topic:
    """The topic after a customer's message, with the number of attempts at it.

    1 at a topic's first question; one more for each later turn that reports failure or asks the
    same again; a new question of detail does not count; 0 after a confirmation, 1 at a new topic.

    :param topic: before the message; None at the start of a conversation.
    :param article_id: the best article found for the message.
    :param similarity: cosine of the message to the topic's question.
    """
    small = intent in ("thanks", "greeting", "offtopic")
    if topic is None or topic.attempts == 0:
        # Thanks after a solved topic begin nothing; the next question does.
        attempts = 0 if small or intent == "confirmation" else 1
        return Topic(article_id=None if small else article_id, question=text, attempts=attempts)
    if intent == "confirmation":
        return Topic(topic.article_id, topic.question, 0)
    if reports_failure(text, intent) or similarity >= SAME_QUESTION.value:
        return Topic(topic.article_id, topic.question, topic.attempts + 1)
    same_article = article_id is not None and article_id == topic.article_id
    if small or same_article or similarity >= NEW_TOPIC.value:
        return topic
    return Topic(article_id, text, 1)

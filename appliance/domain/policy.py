"""Every number and list that a router, a prompt or an agent decides by. One source of truth.

These are defaults: a desk may have its own later, which is why they are data and not code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

Category = Literal["Technical", "Billing", "Account", "General"]
Sentiment = Literal["Positive", "Neutral", "Negative", "Angry"]
Intent = Literal["question", "person", "failure", "confirmation", "thanks", "greeting", "offtopic"]
Role = Literal["customer", "agent", "admin"]

CATEGORIES: Final[tuple[Category, ...]] = get_args(Category)
SENTIMENTS: Final[tuple[Sentiment, ...]] = get_args(Sentiment)
INTENTS: Final[tuple[Intent, ...]] = get_args(Intent)
ROLES: Final[tuple[Role, ...]] = get_args(Role)

SAFE_CATEGORY: Final[Category] = "General"
SAFE_SENTIMENT: Final[Sentiment] = "Neutral"


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number that data chose: its value and how it was found."""

    value: float
    found_by: str


# --- priority and escalation ----------------------------------------------------------------------
PRIORITY_BASE: Final = 3
PRIORITY_FOR_SENTIMENT: Final[dict[Sentiment, int]] = {
    "Positive": 0,
    "Neutral": 0,
    "Negative": 2,
    "Angry": 3,
}
PRIORITY_REPEAT: Final = 2
PRIORITY_VIP: Final = 2
PRIORITY_MIN: Final = 1
PRIORITY_MAX: Final = 10
REPEAT_WINDOW_DAYS: Final = 7

ESCALATE_AT_PRIORITY: Final = 8
ESCALATE_AT_ATTEMPTS: Final = 3
ESCALATION_PHRASES: Final[tuple[str, ...]] = (
    "lawsuit",
    "legal",
    "attorney",
    "lawyer",
    "sue",
    "refund immediately",
    "speak to manager",
    "speak to a manager",
    "talk to manager",
    "talk to a manager",
    "contact supervisor",
    "unacceptable",
    "ridiculous",
    "demand refund",
    "demand a refund",
    "escalate this",
)

EscalationReason = Literal["phrase", "person", "anger", "attempts", "priority", "requested"]
"""Why a conversation goes to a person; ``requested`` is the button, the others are decided by
code."""


def priority(sentiment: Sentiment, *, repeat: bool, vip: bool) -> int:
    """Urgency of a query, 1 (least) to 10."""
    value = PRIORITY_BASE + PRIORITY_FOR_SENTIMENT[sentiment]
    value += PRIORITY_REPEAT if repeat else 0
    value += PRIORITY_VIP if vip else 0
    return max(PRIORITY_MIN, min(PRIORITY_MAX, value))


# --- understanding --------------------------------------------------------------------------------
ANGER_MIN: Final = Threshold(
    0.65,
    "240 development queries of two desks: precision .88, recall .97 (.61 and 1.00 without it)",
)
PERSON_MIN: Final = Threshold(
    0.8, "the same queries, per sentence: 12 of 14 requests for a person, 4 of 194 others"
)
SAME_QUESTION: Final = Threshold(
    0.75, "cosine at which two questions of a conversation are one asked twice"
)
NEW_TOPIC: Final = Threshold(
    0.45, "cosine to the topic's question below which another article is a new topic"
)

VOTE_SHARPNESS: Final = 0.05
"""Temperature at which the articles' scores vote for the query's category."""
VOTERS: Final = 8
"""Articles that vote."""
VOTE_FLOOR: Final = 0.001
"""What a category without an article near the query still gets: the desk may know nothing of it
yet."""
SENTENCES_READ: Final = 16
"""Sentences of a mail looked at for a request for a person: who wants one says so early or last."""

# --- limits of what comes in ----------------------------------------------------------------------
MESSAGE_MAX_CHARS: Final = 8_000
ID_MAX_CHARS: Final = 128
COMMENT_MAX_CHARS: Final = 2_000
HISTORY_TURNS: Final = 6
"""Latest messages of a conversation that the agents see."""

# --- retrieval ------------------------------------------------------------------------------------
PASSAGES_FOUND: Final = 5
"""Passages searched and reported for a query."""
CATEGORY_HINT: Final = 0.02
"""Added to the score of passages of the category that was understood. A hard filter costs 3 to 8
points of hit@3; a nudge this small only decides near ties."""
PASSAGES_IN_PROMPT: Final = 2
"""Most passages a responder's prompt shows: on CPU every prompt token costs."""
PROMPT_LEAD: Final = Threshold(
    0.05, "a second passage further than this behind the best one distracts small models"
)

FIT_MIN: Final = Threshold(
    0.33,
    "the same queries: keeps .86 of the answerable and .45 of the others; no cosine separates them",
)
"""Least fit of the best passage to answer from it; fit is its score plus its lead over the next
one."""

PROMPT_CHARS: Final = 2_000
"""Most characters of one passage, and of the customer's message, that a prompt repeats."""

LEANING_WORDS: Final = Threshold(
    14,
    "development queries: 12 of 13 follow-ups find their article among three, and 100 of 144 "
    "changes of topic find theirs first, as 101 do without any history",
)
"""Longest later message that a mere "it" or "that" ties to the question before it, in words."""
TURN_CHARS: Final = 200
"""Characters of an earlier turn that a prompt repeats: enough to follow, cheap to evaluate."""
HANDOFF_ARTICLES: Final = 2
"""Articles that a handoff or a refusal names; more would look like an attempt to get rid of the
customer."""

# --- answering ------------------------------------------------------------------------------------
ANSWER_MAX_TOKENS: Final = 200
"""Longest draft, in tokens."""
AnswerMode = Literal["drafted", "quoted", "curated"]
"""How answers are made from passages: written by the model and judged, or sentences that the model
chose, or the best article as it is."""
QUOTABLE_SENTENCES: Final = 12
"""Most sentences a model may choose from: every one costs prompt tokens."""
QUOTED_SENTENCES: Final = 4
"""Most sentences it may choose."""
MODEL_DEADLINE_SECONDS: Final = 60.0
"""After this long the articles finish an answer, whatever the model's own limit allows."""
QUERY_DEADLINE_SECONDS: Final = 90.0
"""A customer message without an answer after this long was interrupted, by a crash for example."""

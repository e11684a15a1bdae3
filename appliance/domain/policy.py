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
StaffRole = Literal["agent", "admin"]
ArticlePart = Literal["question", "answer"]
QuarantineReason = Literal[
    "assistant", "secrets", "script", "remote_image", "data_url", "invisible"
]
"""Why a sentence of an article waits for an administrator."""
QuarantineState = Literal["held", "released", "removed"]

CATEGORIES: Final[tuple[Category, ...]] = get_args(Category)
SENTIMENTS: Final[tuple[Sentiment, ...]] = get_args(Sentiment)
INTENTS: Final[tuple[Intent, ...]] = get_args(Intent)
ROLES: Final[tuple[Role, ...]] = get_args(Role)
STAFF_ROLES: Final[tuple[StaffRole, ...]] = get_args(StaffRole)

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

EscalationReason = Literal[
    "phrase", "person", "anger", "attempts", "priority", "requested", "language"
]
"""Why a conversation goes to a person; ``requested`` is the button, the others are decided by
code; ``language`` is one that the desk does not read."""


def priority(sentiment: Sentiment, *, repeat: bool, vip: bool) -> int:
    """Urgency of a query, 1 (least) to 10."""
    value = PRIORITY_BASE + PRIORITY_FOR_SENTIMENT[sentiment]
    value += PRIORITY_REPEAT if repeat else 0
    value += PRIORITY_VIP if vip else 0
    return max(PRIORITY_MIN, min(PRIORITY_MAX, value))


# --- understanding --------------------------------------------------------------------------------
ANGER_MIN: Final = Threshold(
    0.55,
    "five desks, each with heads that saw nothing of it: precision .79, recall .75; .5 gives .76 "
    "and .80, .6 .83 and .69",
)
PERSON_MIN: Final = Threshold(
    0.75,
    "per sentence; eight desks, each with a head that saw nothing of it: .88 of 80 requests for a "
    "person, .019 of 1,217 others; .6 gives .91 and .035",
)
SAME_QUESTION: Final = Threshold(
    0.75, "cosine at which two questions of a conversation are one asked twice"
)
NEW_TOPIC: Final = Threshold(
    0.45, "cosine to the topic's question below which another article is a new topic"
)

CATEGORY_TEMPERATURE: Final = Threshold(
    1.8,
    "eight desks, each with a head that saw nothing of it: expected calibration error .019 instead "
    "of .076; two that chose nothing: .07 and .05 instead of .06 and .10",
)
"""What softens the odds of head and articles together: they err together more often than
independent witnesses do."""
SENTIMENT_TEMPERATURE: Final = Threshold(
    0.8, "the same desks: .014 instead of .046; the others .06 and .08 instead of .11 and .08"
)
"""The same for the sentiment head, which is a little too timid."""

OPINION_WEIGHTS: Final = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5)
"""What the language model's log probabilities may count beside the head's."""
OPINION_CHARS: Final = 600
"""Most characters of a message that it is asked about."""
OPINION_SECONDS: Final = 4.0
"""Longest to wait for its word; the head and the articles do without."""
CALIBRATION_FOLDS: Final = 5
"""Heads that judge a model: each leaves out this share of the examples it is asked about."""

VOTE_SHARPNESS: Final = 0.03
"""Temperature at which the articles' scores vote for the query's category."""
VOTERS: Final = 8
"""Articles that vote."""
VOTE_FLOOR: Final = 0.001
"""What a category without an article near the query still gets: the desk may know nothing of it
yet."""
SENTENCES_READ: Final = 16
"""Sentences of a mail looked at for a request for a person: who wants one says so early or last."""

LANGUAGE_WORDS: Final = 4
"""Words in Latin letters below which nothing is taken for another language."""
SENTENCE_WORDS: Final = 2
"""Words of them that are not capitalised like names, below which the same holds."""
SCRIPT_LETTERS: Final = 2
"""Letters of another script below which the same holds."""
ENGLISH_SHARE: Final = Threshold(
    0.15, "share of words that are English only, above which a mail with foreign parts is English"
)
LANGUAGE_MIN: Final = Threshold(
    0.5, "110 messages in eleven languages: all recognised; .7 loses four Russian ones"
)
LANGUAGE_RIVAL_MAX: Final = Threshold(
    0.02, "6,489 English messages: no false alarm up to here, two of them up to .1"
)
"""Most that a language the desk reads may still be likely."""

# --- learning from the desk -----------------------------------------------------------------------
HELD_OUT_EVERY: Final = 5
"""One message in this many, by the hash of its words, judges what was learnt from the others."""
DESK_WEIGHT: Final = Threshold(
    45.0,
    "test halves of four public pools; with 64 a class 20 times each takes 5 to 9 points from the "
    "shipped examples, once each learns sentiment less well by 2",
)
"""What the desk's own examples count beside a shipped one: this, by the root of their number."""
DESK_WEIGHT_MIN: Final = 1.0
DESK_WEIGHT_MAX: Final = 20.0
"""A single correction has to outweigh what speaks against it."""
RECALL_MIN: Final = Threshold(
    0.85, "two public pools: 2,736 pairs of messages at least this near, all of one category"
)
"""Cosine to a corrected message from which its category is taken as it is."""
RECALL_MOOD_MIN: Final = Threshold(
    0.93, "a negation moves a sentence less than its category: .90 of 52 tweets at .85 agree"
)
"""The same for sentiment, ..."""
RECALL_WRITTEN_ALIKE: Final = 0.4
"""... where the two may also differ by this much in how they are written (sum over the surface):
capitals and exclamation marks are a mood that an embedding does not show."""
GATE_TOLERANCE: Final = 0.01
"""Share of the held-out corrections that a candidate may lose."""
SHIPPED_TOLERANCE: Final = 0.01
"""Share of the shipped examples that it may lose: a desk draws the line between two categories its
own way, and that costs a little of ours."""
GATE_NOISE: Final = 1.64
"""Standard deviations of chance beyond which a loss is one: 95% one-sided, over the messages on
which the two differ."""
LEARN_LOOK_SECONDS: Final = 2.0
"""How often a running appliance looks whether there is something new to learn from."""
LEARN_QUIET_SECONDS: Final = 4.0
"""How long nobody may have corrected anything before it learns."""
VERSIONS_KEPT: Final = 10
"""Versions of the heads that can be rolled back to."""

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
TERMS_WEIGHT: Final = Threshold(
    0.15,
    "eight desks, 785 queries: hit@1 .728 to .741, hit@3 .904 to .915; fusing ranks loses instead",
)
"""What having all of a query's words adds to an article's score."""
TOKENS_SHARE: Final = Threshold(
    0.5,
    "eight desks, 795 queries: hit@1 .738 to .766, hit@3 .920 to .928; .33 gives .760, .67 .767. "
    "By halves, the best scores and leads are spread as before: what follows them still holds",
)
"""What the nearness of its tokens counts in an article's score, the rest being its vectors'."""
RERANKED: Final = 16
"""Candidates whose tokens are looked at, a tenth of a millisecond each. Among the 384 articles of
eleven desks together 8, 16 and 48 find the same."""
PASSAGES_IN_PROMPT: Final = 2
"""Most passages a responder's prompt shows: on CPU every prompt token costs."""
PROMPT_LEAD: Final = Threshold(
    0.05, "a second passage further than this behind the best one distracts small models"
)

FIT_MIN: Final = Threshold(
    0.36,
    "eight desks: keeps .91 of the answerable queries, .17 of chatter, .68 of those whose article "
    "was taken out, and .86 of near misses, which scores hardly tell apart (area .59)",
)
"""Least fit of the best passage to answer from it; fit is its score plus its lead over the next
one."""

CERTAIN_MIN: Final = Threshold(
    0.45, "the same queries: reached by .68 of the answerable ones, .29 of those without article"
)
"""Fit below which an answer says that it is not certain, and offers a person."""
RIVAL_LEAD: Final = Threshold(
    0.06, "the same queries: .77 of answers hold the right article, .87 with two where this near"
)
"""Lead of the best passage under which the answer tells the second one too."""
TELLING_LEAD: Final = Threshold(
    0.25,
    "the same queries, whatever their fit: .887 hold the required facts, in 1.5 times the best "
    "article's words; that article and its rival .849 in 1.44; .2 gives .853 in 1.25, .3 .899 in "
    "1.7",
)
"""Sum of a sentence's cosine and its article's score, behind the largest one, down to which the
sentence belongs to the answer."""
TELLING_LEAD_OWN: Final = 0.1
"""How much further behind a sentence of the best article may be."""
ARTICLES_TOLD: Final = 3
"""Most articles whose sentences make one answer."""
NEAR_MIN: Final = Threshold(
    0.25,
    "ten desks: of the .114 of answerable queries below FIT_MIN .098 reach it, of chatter and "
    "smalltalk .18, most of which is known by its intent before",
)
"""Fit below which what comes nearest is about something else and not worth quoting."""
ABSTAINED_SENTENCES: Final = 4
"""Most sentences that a refusal quotes from what came nearest."""

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
JUDGE_NEIGHBOURS: Final = 3
"""Most neighbouring sentences of an article that a sentence may sum up."""
JUDGE_COPIED: Final = Threshold(
    0.6,
    "the development pairs: corruptions without a wrong number, name or negation copy .62 of their "
    "words and more, rewordings with a word that no table knows mostly less",
)
"""Share of a sentence's words that it copies two or more in a row, above which no word may lack a
counterpart."""
JUDGE_LOOSE_WORDS: Final = 2
"""Most verbs and adverbs without a counterpart, on each side, in a sentence that copies less."""
MODEL_DEADLINE_SECONDS: Final = 60.0
"""After this long the articles finish an answer, whatever the model's own limit allows."""
QUERY_DEADLINE_SECONDS: Final = 90.0
"""A customer message without an answer after this long was interrupted, by a crash for example."""
REQUEST_LEASE_SECONDS: Final = 60.0
"""How long a request with an Idempotency-Key counts as under way when nobody has heard of its end:
longer than any but a query takes."""

# --- shedding load --------------------------------------------------------------------------------
CONVERSATION_QUEUE: Final = 8
"""Messages of one conversation that may wait for their turn: they are answered one by one."""
RETRY_MAX_SECONDS: Final = 30
"""Longest ``Retry-After`` of a full desk."""
RETRY_SPREAD: Final = 2.0
"""A full desk tells to come back after one to this many times what an answer takes at present."""
HEARTBEAT_SECONDS: Final = 5.0
"""How often a process writes that it is there."""

REPLAY_TOLERANCE: Final = 0.0005
"""Scores and confidences of a replay that differ by no more are the same: they are kept to four
places, and other batches and processors move the last one."""

# --- webhooks -------------------------------------------------------------------------------------
WEBHOOKS_MAX: Final = 100
"""Most webhooks of a desk: each event is written once for each of them."""
WEBHOOK_RESPONSE_KEPT: Final = 2_048
"""Characters of a receiver's answer that are kept."""
WEBHOOK_AT_ONCE: Final = 4
"""Attempts under way to one webhook: a receiver that hangs holds up no other and is not flooded."""
WEBHOOK_LEASE_SECONDS: Final = 120.0
"""How long a claimed delivery belongs to its worker: well longer than an attempt may take."""
WEBHOOK_SWEEP_SECONDS: Final = 10.0
"""How often a worker looks for what is due, whatever wake-ups came."""
WEBHOOK_JITTER: Final = 0.1
"""Share by which a pause varies either way: what failed together must not return together."""
WEBHOOK_RETRY_AFTER_MAX: Final = 86_400.0
"""Longest pause that a receiver may ask for, in seconds."""
WORKER_STALE_SECONDS: Final = 45.0
"""Age of a worker's last sign of life from which it counts as gone."""

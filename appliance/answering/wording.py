"""The desk's own sentences: openings, handoffs, refusals. Steady, kind, and promising nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from appliance.answering.translations import HANDED_OVER
from appliance.domain.passage import Passage
from appliance.domain.policy import EscalationReason, Intent, Sentiment

OPENINGS: dict[Sentiment, str] = {
    "Positive": "Thank you for your kind message. Here is what our help articles say:",
    "Neutral": "Here is what our help articles say:",
    "Negative": "I am sorry about the trouble. Here is what our help articles say:",
    "Angry": "I am sorry, and I understand that you are upset. Here is what our help articles say:",
}
UNCERTAIN_OPENINGS: dict[Sentiment, str] = {
    "Positive": "Thank you for your kind message. I am not certain, but this may answer it:",
    "Neutral": "I am not certain, but this may answer it:",
    "Negative": "I am sorry about the trouble. I am not certain, but this may answer it:",
    "Angry": (
        "I am sorry, and I understand that you are upset. I am not certain, but this may answer it:"
    ),
}
OPENING_AGAIN = "I am sorry that this is not solved yet. Here is something else that may help:"

ALSO = "This may help as well:"

ABSTENTION = (
    "I could not find a reliable answer to that in our help articles, and I would rather not guess."
)
NOTHING_FURTHER = "I am sorry that this did not help. Our help articles say nothing further on it."
NEAREST = "These articles come nearest: {titles}."
QUOTED = "What they say that is nearest to your question:"
OFFER = "Would you like me to pass your question to a person?"

SMALLTALK: dict[Intent, str] = {
    "thanks": "You are welcome. If anything else comes up, just write.",
    "confirmation": "I am glad to hear that. If anything else comes up, just write.",
    "greeting": "Hello. What can I help you with?",
    "offtopic": (
        "I can only help with questions to our support desk. What would you like to know about our "
        "product, your account or your bill?"
    ),
}

HANDOFF_OPENINGS: dict[EscalationReason, str] = {
    "phrase": "I understand how serious this is for you.",
    "person": "Of course.",
    "anger": "I am sorry; I understand that you are upset.",
    "attempts": "I am sorry that my answers have not solved this.",
    "priority": "I understand that this is urgent for you.",
    "requested": "Of course.",
    "language": "I cannot read the language of your message well enough to answer it myself.",
}
HANDOFF = (
    "I am handing your conversation to a member of our team, who will read everything you wrote "
    "here. Your case reference is {reference}."
)
MEANWHILE = "These articles may help meanwhile: {titles}."

FAILED = "Something went wrong on our side while I looked for an answer."
"""Said when a responder itself broke: the customer still gets an answer and a way on."""

REMOVED = (
    "I have removed what looks like {what} from your message; please never send {it} to anybody."
)
SECRET_NAMES: dict[str, str] = {"password": "a password", "key": "a key", "card": "a card number"}
"""By kind of ``domain.redaction.SECRETS``."""


def removed(kinds: Iterable[str]) -> str:
    """The notice that secrets of these kinds were taken out of the customer's message."""
    names = [name for kind, name in SECRET_NAMES.items() if kind in set(kinds)]
    return REMOVED.format(what=" and ".join(names), it="it" if len(names) == 1 else "them")


DESK_SENTENCES: frozenset[str] = frozenset(
    {
        *OPENINGS.values(),
        *UNCERTAIN_OPENINGS.values(),
        OPENING_AGAIN,
        ALSO,
        ABSTENTION,
        NOTHING_FURTHER,
        OFFER,
        FAILED,
    }
    | {removed(some) for size in (1, 2, 3) for some in combinations(SECRET_NAMES, size)}
)
"""Sentences that no passage has to support, because they say nothing about the product."""


def handoff(
    reason: EscalationReason,
    reference: str,
    passages: Sequence[Passage],
    language: str | None = None,
) -> str:
    """The message that hands a conversation over; for the reason ``language`` in that one too,
    where we have the words."""
    parts = [HANDOFF_OPENINGS[reason], HANDOFF.format(reference=reference)]
    if passages:
        parts.append(MEANWHILE.format(titles=_titles(passages)))
    english = " ".join(parts)
    if reason != "language" or language not in HANDED_OVER:
        return english
    return f"{english}\n\n{HANDED_OVER[language].format(reference=reference)}"


def abstention(opening: str, passages: Sequence[Passage], quoted: Sequence[str] = ()) -> str:
    """The message that says no answer was found, what came nearest, and offers a person.

    :param quoted: sentences of these passages, for the customer to judge.
    """
    parts = [opening]
    if passages:
        parts.append(NEAREST.format(titles=_titles(passages)))
    if not quoted:
        return " ".join([*parts, OFFER])
    return "\n\n".join([" ".join([*parts, QUOTED]), " ".join(quoted), OFFER])


def _titles(passages: Sequence[Passage]) -> str:
    return "; ".join(f'"{passage.article.question}"' for passage in passages)

"""Agent 7: whether a person has to take over, and the words with which the desk hands over."""

from __future__ import annotations

from appliance.answering import wording
from appliance.answering.selection import fitting
from appliance.domain import policy
from appliance.domain.answer import Answer
from appliance.domain.policy import EscalationReason
from appliance.domain.ports import Encoder
from appliance.domain.query import Topic
from appliance.domain.state import QueryState, Run
from appliance.understanding.flags import billing_flags
from appliance.understanding.language import written_in
from appliance.understanding.phrases import escalation_phrase
from appliance.understanding.topics import next_topic


class EscalationAgent:
    """``check`` decides by rules alone, ``escalate`` writes the handoff."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    async def check(self, state: QueryState, run: Run) -> QueryState:
        """Write topic (with its attempts), the final priority, and the reason to escalate, if
        any."""
        topic = await self._topic(state)
        best = next(iter(fitting(state.get("passages", ()))), None)
        repeat = best is not None and best.article.id in state["query"].recent_articles
        priority = policy.priority(state["sentiment"], repeat=repeat, vip=state["query"].vip)
        return {
            "topic": topic,
            "priority": priority,
            "escalation_reason": reason_to_escalate(state, priority, topic.attempts),
        }

    async def escalate(self, state: QueryState, run: Run) -> QueryState:
        """Hand over. The articles that fit are named, because help may be one click away
        meanwhile."""
        reason = state.get("escalation_reason") or "requested"
        language = state.get("language") if reason == "language" else None
        # What comes nearest to a message that could not be read is nearest by chance.
        articles = () if language else fitting(state.get("passages", ()))[: policy.HANDOFF_ARTICLES]
        await run.say(wording.handoff(reason, state["query"].case_reference, articles, language))
        flags = ("escalated", *billing_flags(state["query"].text))
        return {"answer": Answer(response=run.response, outcome="handoff", flags=flags)}

    async def _topic(self, state: QueryState) -> Topic:
        query = state["query"]
        similarity = 0.0
        if query.topic is not None:
            now = await self._encoder.encode_one(query.text)
            similarity = float(now @ await self._encoder.encode_one(query.topic.question))
        best = next(iter(fitting(state.get("passages", ()))), None)
        return next_topic(
            query.topic,
            text=query.text,
            intent=state.get("intent", "question"),
            article_id=best.article.id if best else None,
            similarity=similarity,
        )


def reason_to_escalate(state: QueryState, priority: int, attempts: int) -> EscalationReason | None:
    """The first rule that holds, or None. Needs nothing but the state."""
    if _is_unread(state):
        # First, because the other rules read English: "legal" is what Spaniards call lawful.
        return "language"
    if escalation_phrase(state["query"].text) is not None:
        return "phrase"
    if state.get("wants_person"):
        return "person"
    if state["sentiment"] == "Angry":
        return "anger"
    if attempts >= policy.ESCALATE_AT_ATTEMPTS:
        return "attempts"
    if priority >= policy.ESCALATE_AT_PRIORITY:
        return "priority"
    return None


def _is_unread(state: QueryState) -> bool:
    """Whether the message is in a language that neither the encoder nor any article found is in."""
    language = state.get("language")
    return language is not None and not any(
        written_in(f"{passage.article.question} {passage.article.answer}", language)
        for passage in state.get("passages", ())
    )

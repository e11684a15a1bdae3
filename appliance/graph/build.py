"""The graph of the seven agents. The block in ``build`` is the diagram; everything else serves it.

        START
        |    \\
 categorize   analyze_sentiment
        |          |
 retrieve_kb       |
        \\         /
       check_escalation
    /    |    |    |    \\
technical billing account general escalate
        \\    |    |    |    /
               END
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from appliance.agents.billing import BillingAgent
from appliance.agents.categorizer import Categorizer
from appliance.agents.escalation import EscalationAgent, reason_to_escalate
from appliance.agents.general import GeneralAgent
from appliance.agents.retriever import KnowledgeRetriever
from appliance.agents.sentiment import SentimentAnalyst
from appliance.agents.technical import TechnicalAgent
from appliance.answering import wording
from appliance.domain import policy
from appliance.domain.answer import Answer
from appliance.domain.query import Query, Topic
from appliance.domain.state import QueryState, Run
from appliance.graph.routes import choose_responder
from appliance.logs import get_logger
from appliance.turns import Turns
from appliance.understanding.phrases import asks_for_person

log = get_logger()

Step = Callable[[QueryState, Run], Awaitable[QueryState]]


@dataclass(frozen=True, slots=True)
class Agents:
    """The seven agents; the general agent serves two nodes."""

    categorizer: Categorizer
    sentiment: SentimentAnalyst
    retriever: KnowledgeRetriever
    technical: TechnicalAgent
    billing: BillingAgent
    account: GeneralAgent
    general: GeneralAgent
    escalation: EscalationAgent


class SupportGraph:
    """Answers a query. Compiled once, run for many queries at a time."""

    def __init__(self, agents: Agents) -> None:
        self._graph = build(agents)

    async def __call__(self, query: Query, run: Run) -> QueryState:
        """Run a query to its end; the state always holds an answer.

        :param run: where words go as they are said.
        """
        if query.removed:
            run.notice = wording.removed(query.removed)
        state: QueryState = {"query": query, "stages": {}, "failures": ()}
        final: QueryState = await self._graph.ainvoke(state, context=run)
        return final


def build(agents: Agents) -> Any:
    """The compiled LangGraph."""
    graph = StateGraph(QueryState, context_schema=Run)

    turns = Turns()
    graph.add_node("categorize", guarded("categorize", agents.categorizer, unread, turns))
    graph.add_node("analyze_sentiment", guarded("analyze_sentiment", agents.sentiment, calm, turns))
    graph.add_node("retrieve_kb", guarded("retrieve_kb", agents.retriever, nothing_found, turns))
    graph.add_node(
        "check_escalation",
        guarded("check_escalation", announcing(agents.escalation.check), rules_alone, turns),
    )
    graph.add_node("technical", guarded("technical", agents.technical, apology, turns))
    graph.add_node("billing", guarded("billing", agents.billing, apology, turns))
    graph.add_node("account", guarded("account", agents.account, apology, turns))
    graph.add_node("general", guarded("general", agents.general, apology, turns))
    graph.add_node("escalate", guarded("escalate", agents.escalation.escalate, bare_handoff, turns))

    graph.add_edge(START, "categorize")
    graph.add_edge(START, "analyze_sentiment")
    graph.add_edge("categorize", "retrieve_kb")
    graph.add_edge(["retrieve_kb", "analyze_sentiment"], "check_escalation")
    responders = ["technical", "billing", "account", "general", "escalate"]
    graph.add_conditional_edges("check_escalation", choose_responder, responders)
    for responder in responders:
        graph.add_edge(responder, END)

    return graph.compile()


def guarded(
    name: str, step: Step, fallback: Step, turns: Turns
) -> Callable[..., Awaitable[QueryState]]:
    """A node: times an agent, and lets a failing one fall back to a safe value instead of failing
    the query. Agents of many queries begin in turns."""

    async def node(state: QueryState, runtime: Runtime[Run]) -> QueryState:
        started = time.perf_counter()
        await turns.take()
        try:
            update = await step(state, runtime.context)
            failed: tuple[str, ...] = ()
        except (
            Exception
        ) as error:  # the customer gets an answer whatever an agent does; cancelling still cancels
            log.error("agent_failed", agent=name, error=repr(error), exc_info=True)
            update = await fallback(state, runtime.context)
            failed = (name,)
        seconds = round(time.perf_counter() - started, 4)
        return {**update, "stages": {name: seconds}, "failures": failed}

    return node


def announcing(check: Step) -> Step:
    """Tell the customer what was understood, once it is all known and before the first word."""

    async def announced(state: QueryState, run: Run) -> QueryState:
        update = await check(state, run)
        await announce({**state, **update}, run)
        return update

    return announced


async def announce(state: QueryState, run: Run) -> None:
    """Emit ``analysis`` and ``passages``."""
    await run.emit(
        "analysis",
        {key: state[key] for key in ("category", "sentiment", "priority")},
    )
    await run.emit("passages", {"kb_results": [p.as_result() for p in state.get("passages", ())]})


# --- safe values of failing agents ----------------------------------------------------------------


async def unread(state: QueryState, run: Run) -> QueryState:
    """Category General, an ordinary question."""
    return {
        "category": policy.SAFE_CATEGORY,
        "category_confidence": 0.0,
        "intent": "question",
        "wants_person": asks_for_person(state["query"].text),
        "language": None,
    }


async def calm(state: QueryState, run: Run) -> QueryState:
    """Sentiment Neutral."""
    mood = policy.SAFE_SENTIMENT
    return {
        "sentiment": mood,
        "sentiment_confidence": 0.0,
        "priority": policy.priority(mood, repeat=False, vip=state["query"].vip),
    }


async def nothing_found(state: QueryState, run: Run) -> QueryState:
    """No passages."""
    return {"passages": ()}


async def rules_alone(state: QueryState, run: Run) -> QueryState:
    """The topic as it was; the rules that need no encoder still hold."""
    query = state["query"]
    topic = query.topic or Topic(None, query.text, 1)
    update: QueryState = {
        "topic": topic,
        "escalation_reason": reason_to_escalate(state, state["priority"], topic.attempts),
    }
    await announce({**state, **update}, run)
    return update


async def apology(state: QueryState, run: Run) -> QueryState:
    """Nothing more is risked: what was said stands, and a person is offered."""
    await run.say((" " if run.said else "") + f"{wording.FAILED} {wording.OFFER}")
    return {"answer": Answer(run.response, "abstained")}


async def bare_handoff(state: QueryState, run: Run) -> QueryState:
    """The handoff without articles."""
    reason = state.get("escalation_reason") or "requested"
    language = state.get("language")
    await run.say(wording.handoff(reason, state["query"].case_reference, (), language))
    return {"answer": Answer(run.response, "handoff", flags=("escalated",))}

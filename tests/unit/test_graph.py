"""The map: which agents run, in what order, and what happens when one of them fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import combinations
from typing import Any, cast

import pytest

from appliance.answering import wording
from appliance.domain.passage import Passage
from appliance.domain.policy import Category, Intent
from appliance.domain.query import Query, Topic, Turn
from appliance.domain.state import QueryState, Run
from appliance.graph.build import Agents, SupportGraph, build
from appliance.graph.routes import choose_responder
from appliance.llm.scripted import ScriptedModel
from tests.builders import (
    CRASH,
    HOURS,
    PASSWORD,
    REFUND,
    FixedReading,
    FixedSearch,
    Heard,
    PlainEncoder,
    make_agents,
    passage,
    query,
    run_heard,
    understood,
)

pytestmark = pytest.mark.anyio

Step = Callable[[QueryState, Run], Awaitable[QueryState]]
RESPONDERS = ("technical", "billing", "account", "general")
FOUND = (passage(PASSWORD, 0.7), passage(REFUND, 0.2), passage(CRASH, 0.1))


class Escalation:
    """``check`` and ``escalate``, each of which a test may replace."""

    def __init__(self, check: Step, escalate: Step) -> None:
        self.check = check
        self.escalate = escalate


def swapped(agents: Agents, **steps: Step) -> Agents:
    """The agents with some of their nodes' steps replaced."""
    inner = agents.escalation
    check = steps.pop("check_escalation", inner.check)
    escalate = steps.pop("escalate", inner.escalate)
    names = {
        "categorize": "categorizer",
        "analyze_sentiment": "sentiment",
        "retrieve_kb": "retriever",
    }
    return replace(
        agents,
        escalation=cast(Any, Escalation(check, escalate)),
        **cast(Any, {names.get(node, node): step for node, step in steps.items()}),
    )


def step_of(agents: Agents, node: str) -> Step:
    steps: dict[str, Any] = {
        "categorize": agents.categorizer,
        "analyze_sentiment": agents.sentiment,
        "retrieve_kb": agents.retriever,
        "check_escalation": agents.escalation.check,
        "technical": agents.technical,
        "billing": agents.billing,
        "account": agents.account,
        "general": agents.general,
        "escalate": agents.escalation.escalate,
    }
    return cast(Step, steps[node])


NODES = (
    *("categorize", "analyze_sentiment", "retrieve_kb", "check_escalation"),
    *RESPONDERS,
    "escalate",
)


def watched(agents: Agents, seen: list[str]) -> Agents:
    """The agents, each of which notes when it begins and ends."""

    def noting(node: str) -> Step:
        step = step_of(agents, node)

        async def noted(state: QueryState, run: Run) -> QueryState:
            seen.append(f"{node} begins")
            update = await step(state, run)
            seen.append(f"{node} ends")
            return update

        return noted

    return swapped(agents, **{node: noting(node) for node in NODES})


def desk(reading: FixedReading | None = None, found: tuple[Passage, ...] = FOUND) -> Agents:
    return make_agents(
        ScriptedModel([found[0].article.answer if found else "Well."]),
        reading=reading,
        search=FixedSearch(found, {"Account": 1.0}),
    )


async def ask(agents: Agents, asked: Query | None = None) -> tuple[QueryState, Heard]:
    run, heard = run_heard()
    state = await asyncio.wait_for(SupportGraph(agents)(asked or query(), run), 10)
    assert state["answer"].response == heard.text
    return state, heard


async def raising(state: QueryState, run: Run) -> QueryState:
    raise RuntimeError("told to fail")


# --- the shape ------------------------------------------------------------------------------------


def test_the_edges_are_those_of_the_diagram() -> None:
    drawn = build(desk()).get_graph()
    edges = {(edge.source, edge.target) for edge in drawn.edges}
    assert edges == {
        ("__start__", "categorize"),
        ("__start__", "analyze_sentiment"),
        ("categorize", "retrieve_kb"),
        ("retrieve_kb", "check_escalation"),
        ("analyze_sentiment", "check_escalation"),
        *(("check_escalation", responder) for responder in (*RESPONDERS, "escalate")),
        *((responder, "__end__") for responder in (*RESPONDERS, "escalate")),
    }


async def test_each_node_begins_after_those_it_follows() -> None:
    seen: list[str] = []
    await ask(watched(desk(), seen))
    assert {line.split()[0] for line in seen} == {
        *("categorize", "analyze_sentiment", "retrieve_kb", "check_escalation", "account")
    }
    for before, after in (
        ("categorize", "retrieve_kb"),
        ("retrieve_kb", "check_escalation"),
        ("analyze_sentiment", "check_escalation"),
        ("check_escalation", "account"),
    ):
        assert seen.index(f"{before} ends") < seen.index(f"{after} begins")
    assert len(seen) == len(set(seen)), "no node runs twice"


async def test_category_and_mood_are_read_at_the_same_time() -> None:
    agents = desk()
    both = asyncio.Barrier(2)

    def meeting(step: Step) -> Step:
        async def met(state: QueryState, run: Run) -> QueryState:
            await asyncio.wait_for(both.wait(), 2)
            return await step(state, run)

        return met

    state, _ = await ask(
        swapped(
            agents,
            categorize=meeting(agents.categorizer),
            analyze_sentiment=meeting(agents.sentiment),
        )
    )
    assert state["failures"] == ()


@pytest.mark.parametrize("slow", ["categorize", "analyze_sentiment", "retrieve_kb"])
async def test_the_check_waits_for_the_slowest_branch_and_runs_once(slow: str) -> None:
    agents = desk()
    step = step_of(agents, slow)

    async def slowly(state: QueryState, run: Run) -> QueryState:
        await asyncio.sleep(0.02)
        return await step(state, run)

    seen: list[str] = []
    state, _ = await ask(watched(swapped(agents, **{slow: slowly}), seen))
    assert state["failures"] == ()
    assert seen.count("check_escalation begins") == 1
    for node in ("categorize", "analyze_sentiment", "retrieve_kb"):
        assert seen.index(f"{node} ends") < seen.index("check_escalation begins")


async def test_every_node_that_ran_has_its_time() -> None:
    state, _ = await ask(desk())
    assert set(state["stages"]) == {
        *("categorize", "analyze_sentiment", "retrieve_kb", "check_escalation", "account")
    }
    assert all(seconds >= 0 for seconds in state["stages"].values())


# --- routes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("category", "responder"),
    [
        ("Technical", "technical"),
        ("Billing", "billing"),
        ("Account", "account"),
        ("General", "general"),
    ],
)
@pytest.mark.parametrize("intent", ["question", "failure"])
async def test_the_category_chooses_the_responder(
    category: Category, responder: str, intent: Intent
) -> None:
    seen: list[str] = []
    reading = FixedReading(categories=category, intents=intent)
    state, _ = await ask(watched(desk(reading), seen))
    assert f"{responder} begins" in seen
    assert len([line for line in seen if line.split()[0] in (*RESPONDERS, "escalate")]) == 2
    assert state["category"] == category


@pytest.mark.parametrize("intent", ["thanks", "greeting", "offtopic", "confirmation"])
async def test_small_talk_goes_to_the_general_agent(intent: Intent) -> None:
    seen: list[str] = []
    reading = FixedReading(categories="Billing", intents=intent)
    state, _ = await ask(watched(desk(reading, ()), seen))
    assert "general ends" in seen
    assert state["answer"].outcome == "smalltalk"


ESCALATING: dict[str, tuple[FixedReading, Query]] = {
    "phrase": (FixedReading(), query("My lawyer will call you")),
    "person": (FixedReading(people=True), query("a human please")),
    "anger": (FixedReading(sentiments="Angry"), query("Outrageous")),
    "attempts": (
        FixedReading(intents="failure"),
        query("still broken", topic=Topic(PASSWORD.id, "reset?", 2)),
    ),
    "priority": (
        FixedReading(sentiments="Negative"),
        query("sad", vip=True, recent=[PASSWORD.id]),
    ),
}


@pytest.mark.parametrize("reason", ESCALATING)
async def test_each_reason_hands_over_and_names_the_articles_that_fit(reason: str) -> None:
    reading, asked = ESCALATING[reason]
    seen: list[str] = []
    state, heard = await ask(watched(desk(reading), seen), asked)
    assert state["escalation_reason"] == reason
    assert "escalate ends" in seen
    assert not any(line.split()[0] in RESPONDERS for line in seen)
    assert state["answer"].outcome == "handoff"
    assert asked.case_reference in heard.text
    assert PASSWORD.question in heard.text
    assert state["passages"] == FOUND, "passages are found for escalated queries, too"


@pytest.mark.parametrize(
    ("reading", "asked"),
    [
        (FixedReading(sentiments="Negative"), query("bad", vip=True)),
        (FixedReading(sentiments="Negative"), query("bad", recent=[PASSWORD.id])),
        (FixedReading(), query("again", vip=True, recent=[PASSWORD.id])),
        (FixedReading(sentiments="Negative"), query("bad", vip=True, recent=[HOURS.id])),
        (FixedReading(intents="failure"), query("bad", topic=Topic(PASSWORD.id, "reset?", 1))),
        (FixedReading(), query("I have an issue that is not illegal")),
    ],
)
async def test_one_step_short_of_every_reason_is_answered(
    reading: FixedReading, asked: Query
) -> None:
    state, _ = await ask(desk(reading), asked)
    assert state["escalation_reason"] is None
    assert state["answer"].outcome != "handoff"


async def test_a_repeated_question_raises_the_priority_by_two() -> None:
    alone, _ = await ask(desk())
    repeated, heard = await ask(desk(), query(recent=[PASSWORD.id]))
    assert (alone["priority"], repeated["priority"]) == (3, 5)
    assert heard.events[0][1]["priority"] == 5


async def test_an_article_that_does_not_fit_repeats_nothing() -> None:
    weak = (passage(PASSWORD, 0.1), passage(REFUND, 0.09))
    state, _ = await ask(desk(found=weak), query(recent=[PASSWORD.id]))
    assert state["priority"] == 3


async def test_small_talk_does_not_outrank_a_reason_to_escalate() -> None:
    reading = FixedReading(intents="thanks")
    state, _ = await ask(desk(reading), query("Thanks, my lawyer will write to you"))
    assert state["answer"].outcome == "handoff"


def test_routes_are_pure_and_safe_without_an_intent() -> None:
    state = understood(query(), category="Billing")
    del state["intent"]
    assert choose_responder(state) == "billing"
    assert choose_responder({**state, "escalation_reason": "anger"}) == "escalate"


# --- what the customer sees -----------------------------------------------------------------------


@pytest.mark.parametrize("reading", [FixedReading(), FixedReading(sentiments="Angry")])
async def test_analysis_comes_before_passages_before_the_first_token(reading: FixedReading) -> None:
    _, heard = await ask(desk(reading))
    assert heard.names[:2] == ["analysis", "passages"]
    assert set(heard.names[2:]) == {"token"}
    assert heard.names.count("analysis") == heard.names.count("passages") == 1


async def test_analysis_and_passages_say_what_was_found() -> None:
    reading = FixedReading(categories="Billing", sentiments="Negative")
    _, heard = await ask(desk(reading))
    assert heard.events[0][1] == {"category": "Billing", "sentiment": "Negative", "priority": 5}
    results = heard.events[1][1]["kb_results"]
    assert results[0] == {
        "id": "21",
        "title": PASSWORD.question,
        "content": PASSWORD.answer,
        "category": "Account",
        "score": 0.7,
    }
    assert [result["id"] for result in results] == ["21", "12", "1"]


async def test_the_category_is_a_hint_for_the_search() -> None:
    search = FixedSearch(FOUND)
    agents = make_agents(ScriptedModel(), reading=FixedReading(categories="Billing"), search=search)
    await ask(agents)
    assert set(search.hints) == {"Billing"}


async def test_the_articles_votes_reach_the_reader_and_the_history_says_what_is_first() -> None:
    reading = FixedReading()
    await ask(desk(reading))
    await ask(desk(reading), query(history=[Turn("customer", "hello")]))
    assert reading.votes_seen == [{"Account": 1.0}] * 2
    assert reading.firsts_seen == [True, False]


class NotingEncoder(PlainEncoder):
    """Remembers what was embedded one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    async def encode_one(self, text: str) -> Any:
        self.texts.append(text)
        return await super().encode_one(text)


@pytest.mark.parametrize(
    ("text", "attempts", "together"),
    [
        ("And how long is it valid?", 1, True),
        ("what about that one", 2, True),
        ("And how long is it valid?", 0, False),
        ("Where do giraffes sleep at night?", 1, False),
    ],
    ids=["leaning", "leaning too", "topic is settled", "stands alone"],
)
async def test_a_message_that_leans_on_the_question_before_is_searched_with_it(
    text: str, attempts: int, together: bool
) -> None:
    encoder = NotingEncoder()
    agents = make_agents(ScriptedModel(), search=FixedSearch(), encoder=encoder)
    topic = Topic(PASSWORD.id, "How do I reset my password?", attempts)
    await ask(agents, query(text, topic=topic, history=[Turn("customer", topic.question)]))
    assert (f"{topic.question} {text}" in encoder.texts) is together


async def test_the_first_message_leans_on_nothing() -> None:
    encoder = NotingEncoder()
    agents = make_agents(ScriptedModel(), search=FixedSearch(), encoder=encoder)
    await ask(agents, query("And what about that?"))
    assert set(encoder.texts) == {"And what about that?"}


# --- failing agents -------------------------------------------------------------------------------

SAFE: dict[str, dict[str, Any]] = {
    "categorize": {"category": "General", "intent": "question"},
    "analyze_sentiment": {"sentiment": "Neutral", "priority": 3},
    "retrieve_kb": {"passages": ()},
    "check_escalation": {"escalation_reason": None},
}


@pytest.mark.parametrize("node", SAFE)
async def test_an_analyst_that_fails_leaves_a_safe_value_and_an_answer(node: str) -> None:
    state, heard = await ask(swapped(desk(), **{node: raising}))
    assert state["failures"] == (node,)
    assert {key: state[key] for key in SAFE[node]} == SAFE[node]  # type: ignore[literal-required]
    assert state["answer"].response
    assert state["answer"].outcome in ("answered", "abstained")
    assert heard.names[:3] == ["analysis", "passages", "token"]
    assert state["topic"].question == query().text
    assert node in state["stages"]


@pytest.mark.parametrize("node", RESPONDERS)
async def test_a_responder_that_fails_leaves_an_apology_and_offers_a_person(node: str) -> None:
    category = cast(Category, node.capitalize())
    reading = FixedReading(categories=category)
    state, heard = await ask(swapped(desk(reading), **{node: raising}))
    assert state["failures"] == (node,)
    assert state["answer"].outcome == "abstained"
    assert heard.text == f"{wording.FAILED} {wording.OFFER}"


async def test_a_responder_that_fails_midway_keeps_what_was_said() -> None:
    async def half(state: QueryState, run: Run) -> QueryState:
        await run.say("Here is what our help articles say:")
        raise RuntimeError("told to fail")

    state, heard = await ask(swapped(desk(), account=half))
    assert heard.text.startswith("Here is what our help articles say: ")
    assert heard.text.endswith(wording.OFFER)
    assert state["answer"].response == heard.text


@pytest.mark.parametrize("reason", ESCALATING)
async def test_a_handoff_that_fails_still_hands_over(reason: str) -> None:
    reading, asked = ESCALATING[reason]
    state, heard = await ask(swapped(desk(reading), escalate=raising), asked)
    assert state["failures"] == ("escalate",)
    assert state["answer"].outcome == "handoff"
    assert asked.case_reference in heard.text


@pytest.mark.parametrize(
    "nodes",
    [pair for size in (2, 3, 4) for pair in combinations(SAFE, size)],
    ids="+".join,
)
async def test_several_failing_analysts_still_leave_an_answer(nodes: tuple[str, ...]) -> None:
    state, heard = await ask(swapped(desk(), **dict.fromkeys(nodes, raising)))
    assert set(state["failures"]) == set(nodes)
    assert len(state["failures"]) == len(nodes)
    assert heard.names[:3] == ["analysis", "passages", "token"]


async def test_a_request_for_a_person_survives_a_failing_check() -> None:
    reading = FixedReading(people=True)
    state, _ = await ask(swapped(desk(reading), check_escalation=raising))
    assert state["answer"].outcome == "handoff"


@pytest.mark.parametrize("text", ["My lawyer will call you", "I demand a refund"])
async def test_an_escalation_phrase_needs_no_other_agent(text: str) -> None:
    """It is read from the text alone, whatever else is broken."""
    broken = dict.fromkeys(("categorize", "analyze_sentiment", "retrieve_kb"), raising)
    state, _ = await ask(swapped(desk(), **broken), query(text))
    assert state["escalation_reason"] == "phrase"
    assert state["answer"].outcome == "handoff"


async def test_a_broken_encoder_still_leaves_an_answer() -> None:
    class BrokenEncoder(PlainEncoder):
        async def encode_one(self, text: str) -> Any:
            raise RuntimeError("told to fail")

    agents = make_agents(ScriptedModel(), search=FixedSearch(FOUND), encoder=BrokenEncoder())
    state, heard = await ask(agents, query(topic=Topic("9", "before", 1)))
    assert set(state["failures"]) == set(SAFE)
    assert heard.text.endswith(wording.OFFER)


async def test_vip_counts_also_when_the_mood_is_unknown() -> None:
    state, _ = await ask(swapped(desk(), analyze_sentiment=raising), query(vip=True))
    assert state["priority"] == 5


async def test_a_failing_check_keeps_the_topic_as_it_was() -> None:
    topic = Topic("3", "Why no sync?", 2)
    state, _ = await ask(swapped(desk(), check_escalation=raising), query(topic=topic))
    assert state["topic"] == topic


async def test_cancelling_a_query_cancels_it() -> None:
    started = asyncio.Event()

    async def endless(state: QueryState, run: Run) -> QueryState:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    run, _ = run_heard()
    task = asyncio.create_task(SupportGraph(swapped(desk(), account=endless))(query(), run))
    await asyncio.wait_for(started.wait(), 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_compiled_graph_answers_many_queries_at_once() -> None:
    graph = SupportGraph(
        make_agents(
            ScriptedModel([PASSWORD.answer], delay=0.001),
            search=FixedSearch(FOUND),
            reading=FixedReading(
                sentiments=lambda text: "Negative" if "sad" in text else "Neutral",
            ),
        )
    )

    async def one(text: str) -> tuple[str, str]:
        run, heard = run_heard()
        state = await graph(query(text), run)
        assert heard.text == state["answer"].response
        return state["query"].text, state["sentiment"]

    texts = ["sad 1", "calm 1", "sad 2", "calm 2"] * 3
    wanted = [(text, "Negative" if "sad" in text else "Neutral") for text in texts]
    assert await asyncio.gather(*map(one, texts)) == wanted

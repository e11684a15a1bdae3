"""The report card on outcomes made by hand, against figures worked out by hand."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from appliance.answering import wording
from appliance.domain.answer import Answer, Mode, TokenUsage
from appliance.domain.answer import Outcome as Way
from appliance.domain.passage import Passage
from appliance.domain.policy import SENTIMENTS, Category, Sentiment
from appliance.evaluation.compare import figures
from appliance.evaluation.golden import GoldenItem, GoldenTurn
from appliance.evaluation.metrics import is_figure, report
from appliance.evaluation.run import Outcome, run_golden
from appliance.evaluation.worst import worst
from appliance.graph.build import SupportGraph
from appliance.llm.scripted import ScriptedModel
from tests.builders import (
    CRASH,
    HOURS,
    PASSWORD,
    REFUND,
    FixedReading,
    FixedSearch,
    make_agents,
    passage,
    query,
    understood,
)

ALL = tuple(passage(article) for article in (PASSWORD, REFUND, CRASH, HOURS))
OPENING = wording.OPENINGS["Neutral"]


def outcome(
    item: GoldenItem,
    *,
    response: str = "Well.",
    way: Way = "answered",
    mode: Mode = "none",
    category: Category = "General",
    sentiment: Sentiment = "Neutral",
    passages: tuple[Passage, ...] = (),
    seconds: float = 1.0,
    stages: dict[str, float] | None = None,
    tokens: TokenUsage | None = None,
) -> Outcome:
    answer = Answer(response, way, mode, tokens=tokens or TokenUsage())
    state = understood(query(item.text), passages, category=category, sentiment=sentiment)
    state["answer"] = answer
    state["stages"] = stages or {}
    return Outcome(item, state, seconds)


# Six queries. What is wanted stands in the item, what was found beside it.
SIX = [
    # right in everything; article first; both facts; supported
    outcome(
        GoldenItem(
            "reset?",
            category="Account",
            sentiment="Neutral",
            escalate=False,
            faq=21,
            answerable=True,
            must_include=["60 minutes", "ONLY ONCE"],
            must_not_include=["14 days"],
            source="mail",
        ),
        response=(
            f"{OPENING}\n\nThe password reset link is valid for 60 minutes and works only once."
        ),
        mode="drafted",
        category="Account",
        passages=ALL,
        seconds=1.0,
        stages={"categorize": 0.1, "account": 0.8},
        tokens=TokenUsage(100, 40, 20),
    ),
    # category wrong; article third; one fact of two; one of two sentences invented
    outcome(
        GoldenItem(
            "crash?",
            category="Technical",
            sentiment="Negative",
            escalate=False,
            faq="1",
            answerable=True,
            must_include=["200 MB", "restart"],
            source="mail",
        ),
        response=(
            f"{wording.OPENINGS['Negative']}\n\n"
            "Export crashes usually happen with documents larger than 200 MB. "
            "Our engineers will visit you tomorrow."
        ),
        mode="drafted",
        category="Billing",
        sentiment="Negative",
        passages=(ALL[0], ALL[1], ALL[2], ALL[3]),
        seconds=2.0,
        stages={"categorize": 0.3, "technical": 1.5},
        tokens=TokenUsage(200, 60, 40),
    ),
    # anger seen; handed over as wanted; article not found
    outcome(
        GoldenItem(
            "thieves!",
            category="Billing",
            sentiment="Angry",
            escalate=True,
            faq=99,
            answerable=True,
            must_include=["14 days"],
            source="chat",
        ),
        way="handoff",
        category="Billing",
        sentiment="Angry",
        passages=ALL,
        seconds=3.0,
        stages={"categorize": 0.2, "escalate": 0.1},
    ),
    # anger missed, hence not handed over
    outcome(
        GoldenItem("well done, geniuses", sentiment="Angry", escalate=True, source="chat"),
        way="abstained",
        sentiment="Positive",
        seconds=4.0,
        stages={"categorize": 0.2},
    ),
    # anger seen where there is none; handed over in vain; nothing to answer from
    outcome(
        GoldenItem("hm.", sentiment="Neutral", escalate=False, answerable=False, source="chat"),
        way="handoff",
        sentiment="Angry",
        seconds=5.0,
        stages={"categorize": 0.2},
    ),
    # answered although nothing is known, with what must not be said; second article is right
    outcome(
        GoldenItem(
            "vouchers?",
            sentiment="Positive",
            escalate=False,
            faq=12,
            answerable=False,
            must_not_include=["refundable"],
            source="chat",
        ),
        response=f"{OPENING}\n\nMonthly renewals are not refundable.",
        mode="curated",
        sentiment="Positive",
        passages=ALL,
        seconds=6.0,
        stages={"categorize": 0.2, "general": 0.5},
        tokens=TokenUsage(0, 0, 0),
    ),
]


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    return report(SIX, "tiny")


def test_categories_are_counted_by_hand(card: dict[str, Any]) -> None:
    assert card["category"] == {
        "accuracy": 0.6667,
        "n": 3,
        "confusion": {
            "Account": {"Account": 1},
            "Billing": {"Billing": 1},
            "Technical": {"Billing": 1},
        },
        "by_source": {"mail": {"accuracy": 0.5, "n": 2}, "chat": {"accuracy": 1.0, "n": 1}},
    }


def test_sentiments_are_counted_by_hand(card: dict[str, Any]) -> None:
    # Nobody takes Angry for Negative or the other way round, so three classes are no easier.
    assert card["sentiment"] == {
        "accuracy": 0.6667,
        "accuracy_3": 0.6667,
        "n": 6,
        "confusion": {
            "Angry": {"Angry": 1, "Positive": 1},
            "Negative": {"Negative": 1},
            "Neutral": {"Neutral": 1, "Angry": 1},
            "Positive": {"Positive": 1},
        },
        "by_source": {
            "mail": {"accuracy": 1.0, "accuracy_3": 1.0, "n": 2},
            "chat": {"accuracy": 0.5, "accuracy_3": 0.5, "n": 4},
        },
    }


def test_three_sentiments_take_anger_and_displeasure_for_one() -> None:
    found: tuple[Sentiment, ...] = ("Negative", "Angry", "Neutral", "Positive")
    taken = [outcome(GoldenItem("x", sentiment="Angry"), sentiment=mood) for mood in found]
    card = report(taken, None)["sentiment"]
    assert (card["accuracy"], card["accuracy_3"]) == (0.25, 0.5)


def test_anger_is_counted_by_hand(card: dict[str, Any]) -> None:
    assert card["anger"] == {"precision": 0.5, "recall": 0.5, "n": 2}


def test_escalations_are_counted_by_hand(card: dict[str, Any]) -> None:
    assert card["escalation"] == {
        "recall": 0.5,
        "false_rate": 0.25,
        "n": 6,
        "by_source": {
            "mail": {"recall": None, "false_rate": 0.0, "n": 2},
            "chat": {"recall": 0.5, "false_rate": 0.5, "n": 4},
        },
        "by_reason": {"anger": {"recall": 0.5, "n": 2}},
        "false_by_rule": {"None": 1},
    }


def test_escalations_are_split_by_the_first_reason_that_holds() -> None:
    handed = [
        (GoldenItem("My lawyer will call.", intent="person", sentiment="Angry"), True),
        (GoldenItem("Sue Miller here, get me a human", intent="person"), True),
        (GoldenItem("Somebody, please", intent="person", sentiment="Angry"), False),
        (GoldenItem("Thieves!", sentiment="Angry", intent="question"), True),
        (GoldenItem("Third time now"), False),
    ]
    card = report(
        [
            outcome(
                msgspec.structs.replace(item, escalate=True),
                way="handoff" if handed_over else "answered",
            )
            for item, handed_over in handed
        ],
        None,
    )["escalation"]
    assert card["by_reason"] == {
        "phrase": {"recall": 1.0, "n": 1},
        "person": {"recall": 0.5, "n": 2},
        "anger": {"recall": 1.0, "n": 1},
        "rest": {"recall": 0.0, "n": 1},
    }
    assert card["recall"] == 0.6


def test_retrieval_is_counted_by_hand(card: dict[str, Any]) -> None:
    # Ranks 1, 3, none, 2; reciprocals 1, 1/3, 0, 1/2.
    assert card["retrieval"] == {
        "recall_at_1": 0.25,
        "recall_at_3": 0.75,
        "mrr": 0.4583,
        "n": 4,
    }


def test_answers_are_counted_by_hand(card: dict[str, Any]) -> None:
    # Facts: 2 of 2, then 1 of 2. Sentences: 1 good, 1 good and 1 invented, 1 good. Unanswerable:
    # one handed over, one answered. Answerable and not to be handed over: two, both answered.
    # Words: 7 + 13, 13 + 10 + 6, 7 + 5.
    by_source = card["answers"]["by_source"]
    assert {k: v for k, v in card["answers"].items() if k != "by_source"} == {
        "fact_recall": 0.75,
        "exact": 0.5,
        "forbidden_rate": 0.5,
        "unsupported_rate": 0.25,
        "wrong_answer_rate": 0.5,
        "needless_refusal_rate": 0.0,
        "words": 20.3333,
        "n": 4,
    }
    assert by_source["mail"] == {
        "fact_recall": 0.75,
        "exact": 0.5,
        "forbidden_rate": 0.0,
        "unsupported_rate": 0.3333,
        "wrong_answer_rate": None,
        "needless_refusal_rate": 0.0,
        "words": 24.5,
        "n": 2,
    }
    assert by_source["chat"] == {
        "fact_recall": None,
        "exact": None,
        "forbidden_rate": 1.0,
        "unsupported_rate": 0.0,
        "wrong_answer_rate": 0.5,
        "needless_refusal_rate": None,
        "words": 12.0,
        "n": 2,
    }


def test_errors_of_answering_are_split_by_the_kind_of_query() -> None:
    told = [
        outcome(GoldenItem("a", answerable=False, kind="missing")),
        outcome(GoldenItem("b", answerable=False, kind="missing"), way="abstained"),
        outcome(GoldenItem("c", answerable=False, kind="near. miss"), way="handoff"),
        outcome(GoldenItem("d", answerable=True, kind="near. miss"), way="smalltalk"),
        outcome(GoldenItem("e", answerable=False)),
        outcome(GoldenItem("f", answerable=False, escalate=True, kind="angry")),
    ]
    assert report(told, None)["abstention"] == {
        "missing": {"wrong_answer_rate": 0.5, "n": 2},
        "near. miss": {"wrong_answer_rate": 0.0, "needless_refusal_rate": 1.0, "n": 2},
    }


def test_confidence_is_measured_where_it_is_known() -> None:
    # Bins: .95 and .9 hold one hit of two, .85 a hit, .3 a miss, 1.0 (the last bin) a miss.
    told = []
    for confidence, hit in ((0.95, True), (0.9, False), (0.85, True), (0.3, False), (1.0, False)):
        one = outcome(GoldenItem("x", category="Account"), category="Account" if hit else "Billing")
        one.state["category_confidence"] = confidence
        told.append(one)
    card = report(told, None)["category"]
    apart = abs(0.95 + 0.9 + 1.0 - 1) + abs(0.85 - 1) + 0.3
    assert card["ece"] == pytest.approx(apart / 5, abs=1e-4)
    assert card["sure"] == {"accuracy": 0.5, "coverage": 0.8, "n": 4}
    # A set on which nobody is sure has an accuracy of the sure that nobody knows.
    one = outcome(GoldenItem("x", category="Account"), category="Account")
    one.state["category_confidence"] = 0.5
    assert report([one], None)["category"]["sure"] == {"accuracy": None, "coverage": 0.0, "n": 0}


def test_latencies_are_percentiles_of_each_stage(card: dict[str, Any]) -> None:
    assert card["latency"]["total"] == {"p50": 3.5, "p95": 5.75}
    assert card["latency"]["categorize"] == {"p50": 0.2, "p95": 0.275}
    assert card["latency"]["technical"] == {"p50": 1.5, "p95": 1.5}
    assert set(card["latency"]) == {
        *("total", "categorize", "account", "technical", "escalate", "general")
    }


def test_tokens_are_means_over_all_queries(card: dict[str, Any]) -> None:
    assert card["tokens"] == {"prompt": 50.0, "cached": 16.6667, "generated": 10.0}


def test_the_rest_of_the_card(card: dict[str, Any]) -> None:
    assert (card["n"], card["model"], card["mode"]) == (6, "tiny", "drafted")
    assert card["modes"] == {"drafted": 2, "curated": 1}


def test_the_card_is_json(card: dict[str, Any]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(card))["n"] == 6


def test_every_figure_says_of_how_many_values_it_is_the_mean(card: dict[str, Any]) -> None:
    assert card["counts"]["escalation.recall"] == 2
    assert card["counts"]["escalation.false_rate"] == 4
    assert card["counts"]["answers.unsupported_rate"] == 4
    assert card["counts"]["answers.fact_recall"] == 2


def test_figures_are_found_by_their_place(card: dict[str, Any]) -> None:
    named = dict(figures(msgspec.to_builtins(card)))
    assert named["category.accuracy"] == 0.6667
    assert named["escalation.by_reason.anger.recall"] == 0.5
    assert named["answers.by_source.mail.exact"] == 0.5
    assert named["latency.total.p95"] == 5.75
    assert all(is_figure(name) for name in named)
    for name in ("category", "accuracy", "category.n", "category.fact_recall", "model", "", "a.b"):
        assert not is_figure(name)


def test_an_item_tells_what_was_wanted_and_what_came(card: dict[str, Any]) -> None:
    crash = card["items"][1]
    assert crash.text == "crash?"
    assert crash.wanted["must_include"] == ["200 MB", "restart"]
    assert "text" not in crash.wanted
    assert crash.found["category"] == "Billing"
    assert crash.found["faqs"] == ["21", "12", "1", "26"]
    assert (crash.outcome, crash.mode, crash.seconds) == ("answered", "drafted", 2.0)
    assert crash.scores["answers.unsupported_rate"] == [0.0, 1.0]
    assert len({item.key for item in card["items"]}) == 6


def test_the_same_query_twice_has_two_keys_and_the_source_does_not_matter() -> None:
    items = [GoldenItem("a", source="x"), GoldenItem("a", source="y"), GoldenItem("a", kind="z")]
    keys = [item.key for item in report([outcome(item) for item in items], None)["items"]]
    digest = items[0].digest
    assert keys == [f"{digest}-1", f"{digest}-2", f"{items[2].digest}-1"]
    assert items[2].digest != digest


def test_the_worst_come_first_each_on_a_short_line() -> None:
    told = []
    for at, confidence in enumerate((0.3, 0.9, 0.6)):
        one = outcome(GoldenItem(f"{at}\n{'long ' * 40}", category="Account"), category="General")
        one.state["category_confidence"] = confidence
        told.append(one)
    told += [
        outcome(GoldenItem("So?", escalate=True, intent="person")),
        outcome(GoldenItem("My lawyer!", escalate=True)),
        outcome(GoldenItem("Fine.", escalate=False), way="handoff"),
        outcome(GoldenItem("Vouchers?", answerable=False), response="Hi\n\nNo refunds."),
        outcome(GoldenItem("Reset?", answerable=True, faq=21), way="abstained", passages=ALL),
        outcome(GoldenItem("Size?", must_include=["200 MB", "well"])),
        outcome(GoldenItem("Both?", must_include=["200 MB", "restart"])),
    ]
    found = worst(report(told, None)["items"], 2)
    wrong = found["wrong category, surest first"]
    assert [(m.wanted, m.came, m.text[0]) for m in wrong] == [
        ("Account", "General 0.90", "1"),
        ("Account", "General 0.60", "2"),
    ]
    assert all(len(m.text) <= 90 and "\n" not in m.text for m in wrong)
    assert [m.wanted for m in found["missed escalations"]] == [
        "handoff (phrase)",
        "handoff (person)",
    ]
    assert [m.text for m in found["needless escalations"]] == ["Fine."]
    assert found["answers where there is none"] == [("no answer", "none: No refunds.", "Vouchers?")]
    assert found["needless refusals"] == [("article 21", "abstained; found 21, 12, 1", "Reset?")]
    assert [m.wanted for m in found["missing facts"]] == ["200 MB + restart", "200 MB"]
    assert worst(report(told, None)["items"], 0) == {}
    assert worst(report(SIX[:1], None)["items"], 9) == {}


def test_only_what_the_set_states_is_measured() -> None:
    bare = report([outcome(GoldenItem("hi"))], None)
    assert (
        set(bare) & {*("category", "sentiment", "anger", "escalation", "retrieval", "answers")}
        == set()
    )
    assert "abstention" not in bare
    assert (bare["model"], bare["latency"]["total"]) == (None, {"p50": 1.0, "p95": 1.0})


def test_a_share_of_nothing_is_unknown_and_not_zero() -> None:
    one = report(
        [outcome(GoldenItem("hi", sentiment="Neutral", escalate=False, answerable=True))], None
    )
    assert one["anger"] == {"precision": None, "recall": None, "n": 0}
    assert one["escalation"]["recall"] is None
    assert (one["escalation"]["false_rate"], one["escalation"]["n"]) == (0.0, 1)
    assert one["escalation"]["by_reason"] == {}
    assert one["answers"]["fact_recall"] is None
    assert one["answers"]["wrong_answer_rate"] is None


@pytest.mark.parametrize("way", ["abstained", "smalltalk"])
def test_a_refusal_of_what_could_be_answered_is_needless(way: Way) -> None:
    items = [GoldenItem("a", answerable=True), GoldenItem("b", answerable=True)]
    card = report([outcome(items[0], way=way), outcome(items[1], way="answered")], None)
    assert card["answers"]["needless_refusal_rate"] == 0.5
    assert card["answers"]["wrong_answer_rate"] is None


@pytest.mark.parametrize("sentiment", SENTIMENTS)
def test_the_desks_own_words_need_no_support(sentiment: Sentiment) -> None:
    for opening in (wording.OPENINGS[sentiment], wording.OPENING_AGAIN):
        card = report(
            [
                outcome(
                    GoldenItem("reset?", answerable=True),
                    response=f"{opening}\n\n{PASSWORD.answer}",
                    passages=ALL,
                )
            ],
            None,
        )
        assert card["answers"]["unsupported_rate"] == 0.0


def test_a_sentence_of_an_article_that_was_not_found_is_unsupported() -> None:
    card = report(
        [
            outcome(
                GoldenItem("reset?", answerable=True),
                response=f"{OPENING}\n\n{PASSWORD.answer}",
                passages=(passage(REFUND),),
            )
        ],
        None,
    )
    assert card["answers"]["unsupported_rate"] == 1.0


@pytest.mark.anyio
async def test_a_run_puts_the_history_before_the_query_and_stores_the_topic() -> None:
    model = ScriptedModel([PASSWORD.answer])
    reading = FixedReading(intents=lambda text: "failure" if "still" in text else "question")
    found = (passage(PASSWORD, 0.7), passage(REFUND, 0.6))
    graph = SupportGraph(make_agents(model, reading=reading, search=FixedSearch(found)))
    history = [
        GoldenTurn("user", "How do I reset my password?"),
        GoldenTurn("assistant", "Like this."),
        GoldenTurn("user", "It still fails."),
        GoldenTurn("assistant", "Sorry."),
    ]
    items = [GoldenItem("still no luck", history=history), GoldenItem("How do I reset it?")]
    third, first = [o async for o in run_golden(graph, items)]
    assert third.state["topic"].attempts == 3
    assert third.state["answer"].outcome == "handoff"
    assert [turn.content for turn in third.state["query"].history] == [t.content for t in history]
    assert first.state["topic"].attempts == 1
    assert first.state["query"].history == ()
    assert first.seconds > 0
    assert len(model.calls) == 1, "the replay of earlier turns does not wait for the model"

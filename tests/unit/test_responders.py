"""From passages to an answer: what the model may say, and what is said without it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from appliance.agents.billing import BillingAgent
from appliance.agents.general import GeneralAgent
from appliance.agents.responder import Responder
from appliance.agents.technical import TechnicalAgent
from appliance.answering import wording
from appliance.domain.answer import Answer, TokenUsage
from appliance.domain.passage import Article, Passage
from appliance.domain.policy import (
    ANSWER_MAX_TOKENS,
    FIT_MIN,
    NEAR_MIN,
    PROMPT_CHARS,
    Intent,
    Sentiment,
)
from appliance.domain.query import Query, Topic, Turn
from appliance.domain.state import QueryState, Run
from appliance.domain.text import sentences
from appliance.errors import ModelRejected
from appliance.llm.interface import ChatModel
from appliance.llm.scripted import ScriptedModel
from appliance.understanding.flags import FLAGS
from tests.builders import (
    CRASH,
    HOURS,
    PASSWORD,
    REFUND,
    Heard,
    PacedStream,
    StreamModel,
    passage,
    query,
    run_heard,
    said,
    settle,
    understood,
)

pytestmark = pytest.mark.anyio

PARTS = sentences(PASSWORD.answer)
FOUND = (passage(PASSWORD, 0.7), passage(REFUND, 0.1), passage(CRASH, 0.05))
INVENTION = "You can also call your bank and ask for a new password there."


def assert_gave_up(given: Answer, sentence: str) -> None:
    """The sentence was cut as soon as it could not come true any more, and never shown."""
    (cut,) = given.cut
    assert sentence.startswith(cut)
    assert cut not in given.response


RESPONDERS: dict[str, Callable[[ChatModel], Responder]] = {
    "technical": TechnicalAgent,
    "billing": BillingAgent,
    "account": lambda model: GeneralAgent(model, "account"),
    "general": lambda model: GeneralAgent(model, "general"),
}


async def answer(
    model: ChatModel,
    state: QueryState,
    role: str = "account",
    left: asyncio.Event | None = None,
) -> tuple[Answer, Heard]:
    run, heard = run_heard()
    if left is not None:
        run.left = left
    update = await asyncio.wait_for(RESPONDERS[role](model)(state, run), 5)
    assert heard.text == update["answer"].response
    return update["answer"], heard


def body_of(given: Answer) -> str:
    """What stands behind the opening."""
    return given.response.split("\n\n", 1)[1]


@pytest.mark.parametrize("role", RESPONDERS)
async def test_a_supported_draft_is_said_and_cited(role: str) -> None:
    model = ScriptedModel([" ".join(PARTS)])
    given, heard = await answer(model, understood(query(), FOUND), role)
    assert (given.outcome, given.mode, given.cut) == ("answered", "drafted", ())
    assert body_of(given) == " ".join(PARTS)
    assert [(c.id, c.title) for c in given.citations] == [(PASSWORD.id, PASSWORD.question)]
    assert given.tokens.generated == len(" ".join(PARTS).split())
    assert set(heard.names) == {"token"}


@pytest.mark.parametrize("sentiment", ["Positive", "Neutral", "Negative", "Angry"])
async def test_the_opening_suits_the_mood_and_comes_before_the_model(sentiment: Sentiment) -> None:
    stream = PacedStream(said(finish=None), stall_after=0)
    run, heard = run_heard()
    state = understood(query(), FOUND, sentiment=sentiment)
    answering = asyncio.create_task(GeneralAgent(StreamModel(stream), "account")(state, run))
    await asyncio.wait_for(stream.stalled.wait(), 1)
    assert heard.text == wording.OPENINGS[sentiment]
    run.left.set()
    await asyncio.wait_for(answering, 1)


async def test_sentences_are_said_one_by_one_while_the_model_writes() -> None:
    stream = PacedStream(said(f"{PARTS[0]} ", PARTS[1], finish=None), stall_after=2)
    run, heard = run_heard()
    answering = asyncio.create_task(
        GeneralAgent(StreamModel(stream), "account")(understood(query(), FOUND), run)
    )
    await asyncio.wait_for(stream.stalled.wait(), 1)
    await settle()
    assert heard.text.endswith(f"\n\n{PARTS[0]}")
    run.left.set()
    await asyncio.wait_for(answering, 1)


async def test_citations_are_among_the_passages_found() -> None:
    found = (passage(PASSWORD, 0.5), passage(REFUND, 0.49))
    both = f"{PARTS[1]} {sentences(REFUND.answer)[1]}"
    given, _ = await answer(ScriptedModel([both]), understood(query(), found))
    assert {c.id for c in given.citations} == {PASSWORD.id, REFUND.id}
    assert PARTS[1] in given.response
    assert sentences(REFUND.answer)[1] in given.response


async def test_an_inventing_draft_is_replaced_by_the_articles_own_text() -> None:
    model = ScriptedModel([f"{INVENTION} {' '.join(PARTS)}"])
    given, _ = await answer(model, understood(query(), FOUND))
    assert (given.outcome, given.mode) == ("answered", "curated")
    assert body_of(given) == PASSWORD.answer
    assert_gave_up(given, INVENTION)
    assert [c.id for c in given.citations] == [PASSWORD.id]


async def test_a_half_supported_draft_goes_on_with_the_nearest_sentences() -> None:
    model = ScriptedModel([f"{PARTS[1]} {INVENTION}"])
    near = passage(PASSWORD, 0.7, cosines=(0.6, 0.7, 0.1))
    given, _ = await answer(model, understood(query(), (near, *FOUND[1:])))
    assert (given.outcome, given.mode) == ("answered", "drafted")
    assert body_of(given) == f"{PARTS[1]} {PARTS[0]}"
    assert_gave_up(given, INVENTION)


async def test_after_an_invention_the_model_is_stopped() -> None:
    stream = PacedStream(said(f"{INVENTION} ", "And ", "more", finish=None), stall_after=3)
    given, _ = await answer(StreamModel(stream), understood(query(), FOUND))
    assert given.mode == "curated"
    await settle()
    assert stream.closed


async def test_a_draft_that_repeats_itself_is_stopped() -> None:
    stream = PacedStream(said(*[f"{PARTS[0]} "] * 9, finish=None), stall_after=9)
    given, _ = await answer(StreamModel(stream), understood(query(), FOUND))
    assert given.response.count(PARTS[0]) == 1
    assert given.outcome == "answered"
    await settle()
    assert stream.closed


async def test_a_draft_that_misses_the_point_is_completed_with_it() -> None:
    point = (passage(PASSWORD, 0.7, cosines=(0.1, 0.2, 0.7)), passage(REFUND, 0.1))
    given, _ = await answer(ScriptedModel([PARTS[0]]), understood(query(), point))
    assert body_of(given) == f"{PARTS[0]} {PARTS[2]}"


@pytest.mark.parametrize("role", RESPONDERS)
async def test_near_sentences_of_other_articles_follow_under_a_line_of_their_own(role: str) -> None:
    found = (
        passage(PASSWORD, 0.6, cosines=(0.6, 0.1, 0.1)),
        passage(REFUND, 0.5, cosines=(0.1, 0.6, 0.1)),
        passage(CRASH, 0.5, cosines=(0.6, 0.1)),
        passage(HOURS, 0.5, cosines=(0.9,)),
    )
    given, _ = await answer(ScriptedModel([PARTS[0]]), understood(query(), found), role)
    refunds, crashes = sentences(REFUND.answer)[1], sentences(CRASH.answer)[0]
    assert body_of(given) == f"{PARTS[0]}\n\n{wording.ALSO}\n\n{refunds}\n\n{crashes}"
    assert [c.id for c in given.citations] == [PASSWORD.id, REFUND.id, CRASH.id]


async def test_what_the_draft_tells_in_other_words_is_not_told_twice() -> None:
    point = (passage(PASSWORD, 0.7, cosines=(0.1, 0.7, 0.1)), passage(REFUND, 0.1))
    reworded = "The link to reset the password is valid for 60 minutes and works only once."
    given, _ = await answer(ScriptedModel([reworded]), understood(query(), point))
    assert body_of(given) == reworded


async def test_a_draft_that_makes_the_point_may_be_short() -> None:
    point = (passage(PASSWORD, 0.7, cosines=(0.1, 0.7, 0.1)), passage(REFUND, 0.1))
    given, _ = await answer(ScriptedModel([PARTS[1]]), understood(query(), point))
    assert body_of(given) == PARTS[1]
    assert given.mode == "drafted"


@pytest.mark.parametrize("role", RESPONDERS)
async def test_a_model_that_is_down_leaves_the_article_to_speak(role: str) -> None:
    given, _ = await answer(ScriptedModel(fail_after=0), understood(query(), FOUND), role)
    assert (given.outcome, given.mode) == ("answered", "curated")
    assert body_of(given) == PASSWORD.answer
    assert given.tokens == TokenUsage()


@pytest.mark.parametrize("pieces", range(1, 40, 4))
async def test_a_model_that_dies_midway_never_leaves_half_a_sentence(pieces: int) -> None:
    model = ScriptedModel([PASSWORD.answer], fail_after=pieces)
    given, _ = await answer(model, understood(query(), FOUND))
    assert given.outcome == "answered"
    body = body_of(given)
    assert sentences(body)
    assert set(sentences(body)) <= set(PARTS)
    assert body.endswith(".")
    assert PARTS[0] in body, "the nearest sentence is always told"


async def test_a_customer_who_leaves_a_slow_model_still_leaves_an_answer_behind() -> None:
    left = asyncio.Event()
    model = ScriptedModel([PASSWORD.answer], delay=30)
    answering = asyncio.create_task(answer(model, understood(query(), FOUND), left=left))
    await asyncio.sleep(0.05)
    left.set()
    given, _ = await asyncio.wait_for(answering, 2)
    assert (given.outcome, given.mode) == ("answered", "curated")
    assert body_of(given) == PASSWORD.answer


class RejectingModel(ScriptedModel):
    """Refuses every request, as a backend with a wrong setting."""

    def stream(self, *args: object, **kwargs: object):  # type: ignore[no-untyped-def,override]
        async def refuse():  # type: ignore[no-untyped-def]
            raise ModelRejected("The context is too long.")
            yield

        return refuse()

    async def complete(self, *args: object, **kwargs: object):  # type: ignore[no-untyped-def,override]
        raise ModelRejected("The context is too long.")


async def test_a_model_that_refuses_the_request_costs_no_answer() -> None:
    given, _ = await answer(RejectingModel(), understood(query(), FOUND))
    assert (given.outcome, given.mode) == ("answered", "curated")
    assert body_of(given) == PASSWORD.answer


WEAK = (passage(PASSWORD, FIT_MIN.value - 0.02), passage(REFUND, FIT_MIN.value - 0.03))


@pytest.mark.parametrize("role", RESPONDERS)
@pytest.mark.parametrize("found", [(), WEAK], ids=["nothing", "weak"])
async def test_without_a_fitting_passage_a_person_is_offered(
    role: str, found: tuple[Passage, ...]
) -> None:
    model = ScriptedModel()
    given, _ = await answer(model, understood(query(), found), role)
    assert (given.outcome, given.mode, given.citations) == ("abstained", "none", ())
    assert given.response.endswith(wording.OFFER)
    assert model.calls == []
    for weak in found:
        assert weak.article.question in given.response
        assert weak.article.answer not in given.response


async def test_a_refusal_quotes_what_comes_nearest_for_the_customer_to_judge() -> None:
    near = FIT_MIN.value - 0.02
    found = (
        passage(PASSWORD, near, cosines=(-0.1, near, -0.1)),
        passage(REFUND, near, cosines=(-0.1, -0.1, near)),
    )
    model = ScriptedModel()
    given, _ = await answer(model, understood(query(), found))
    quoted = f"{PARTS[1]} {sentences(REFUND.answer)[2]}"
    assert given.response.split("\n\n")[1:] == [quoted, wording.OFFER]
    assert (given.outcome, given.mode) == ("abstained", "none")
    assert [c.id for c in given.citations] == [PASSWORD.id, REFUND.id]
    assert model.calls == []


async def test_a_refusal_quotes_nothing_that_is_about_something_else() -> None:
    far = NEAR_MIN.value - 0.02
    found = (passage(PASSWORD, far, cosines=(far,) * 3), passage(REFUND, far, cosines=(far,) * 3))
    given, _ = await answer(ScriptedModel(), understood(query(), found))
    assert not any(part in given.response for part in PARTS)
    assert given.citations == ()


def failing(topic_article: Article, text: str = "That did not help") -> Query:
    return query(text, topic=Topic(topic_article.id, "How do I reset my password?", 1))


async def test_an_article_that_did_not_help_is_not_told_again() -> None:
    found = (passage(PASSWORD, 0.9), passage(REFUND, 0.6))
    model = ScriptedModel([REFUND.answer])
    given, _ = await answer(model, understood(failing(PASSWORD), found))
    assert given.response.startswith(wording.OPENING_AGAIN)
    assert [c.id for c in given.citations] == [REFUND.id]
    assert not any(part in given.response for part in PARTS)
    assert PASSWORD.answer not in model.calls[0][1].content


async def test_a_failure_with_nothing_else_to_tell_offers_a_person() -> None:
    model = ScriptedModel([PASSWORD.answer])
    given, _ = await answer(model, understood(failing(PASSWORD), FOUND[:1]))
    assert given.outcome == "abstained"
    assert given.response.startswith(wording.NOTHING_FURTHER)
    assert given.response.endswith(wording.OFFER)
    assert PASSWORD.question not in given.response


async def test_a_detail_question_gets_the_same_article_again() -> None:
    asked = query("How long is the link valid?", topic=Topic(PASSWORD.id, "reset?", 1))
    given, _ = await answer(ScriptedModel([PARTS[1]]), understood(asked, FOUND))
    assert [c.id for c in given.citations] == [PASSWORD.id]
    assert given.response.startswith(wording.OPENINGS["Neutral"])


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("I want a refund", {"refund"}),
        ("Was it REFUNDED?", {"refund"}),
        ("give me my money back", {"refund"}),
        ("please reimburse me", {"refund"}),
        ("I dispute this invoice", {"dispute"}),
        ("I was charged twice: wrongly billed!", {"dispute"}),
        ("There is a double charge", {"dispute"}),
        ("I was charged twice", {"dispute"}),
        ("You billed me twice this month", {"dispute"}),
        ("my bank opened a chargeback", {"chargeback"}),
        ("I'll start a charge-back", {"chargeback"}),
        ("two charge backs", {"chargeback"}),
        ("cancel my subscription", {"cancel_subscription"}),
        ("I'm cancelling the yearly plan", {"cancel_subscription"}),
        ("please terminate our contract", {"cancel_subscription"}),
        ("I want to end my membership", {"cancel_subscription"}),
        ("unsubscribe", {"cancel_subscription"}),
        ("Cancel my plan and refund the rest", {"refund", "cancel_subscription"}),
        ("Where are my invoices?", set()),
        ("How much is the Team plan?", set()),
        ("Can I cancel an upload?", set()),
        ("The trend of the subscription price", set()),
    ],
)
async def test_billing_flags_what_a_desk_must_not_overlook(text: str, flags: set[str]) -> None:
    found = (passage(REFUND, 0.7),)
    told, _ = await answer(ScriptedModel(), understood(query(text), found), "billing")
    abstained, _ = await answer(ScriptedModel(), understood(query(text)), "billing")
    assert set(told.flags) == flags
    assert set(abstained.flags) == flags


def test_the_flags_are_the_agreed_four() -> None:
    assert set(FLAGS) == {"refund", "dispute", "chargeback", "cancel_subscription"}


@pytest.mark.parametrize("role", ["technical", "account", "general"])
async def test_only_billing_flags_money(role: str) -> None:
    given, _ = await answer(
        ScriptedModel(), understood(query("refund me, cancel my plan"), FOUND), role
    )
    assert given.flags == ()


@pytest.mark.parametrize("role", RESPONDERS)
async def test_the_prompt_shows_the_article_the_question_and_the_role(role: str) -> None:
    model = ScriptedModel([PASSWORD.answer])
    asked = query("How do I get $5 and ${priority} back?")
    await answer(model, understood(asked, FOUND, sentiment="Negative", priority=5), role)
    system, user = model.calls[0]
    assert (system.role, user.role) == ("system", "user")
    assert role in system.content
    assert asked.text in user.content
    assert PASSWORD.answer in user.content
    assert REFUND.answer not in user.content, "a passage far behind the best distracts"
    assert "negative" in user.content
    assert "5" in user.content
    assert "$passages" not in user.content


async def test_the_account_prompt_neither_asks_for_secrets_nor_reveals_them() -> None:
    model = ScriptedModel([PASSWORD.answer])
    await answer(model, understood(query(), FOUND), "account")
    system = model.calls[0][0].content.lower()
    assert "never ask for a password" in system
    assert "code" in system
    assert "card number" in system
    assert "never repeat one" in system


async def test_a_secret_in_the_message_is_not_said_back() -> None:
    echoing = ScriptedModel(lambda messages: "Your password is hunter2. " + messages[1].content)
    asked = query("My password hunter2 does not work, reset?")
    given, _ = await answer(echoing, understood(asked, FOUND))
    assert "hunter2" not in given.response


async def test_earlier_turns_are_told_briefly_and_long_texts_are_cut() -> None:
    model = ScriptedModel([PASSWORD.answer])
    history = [
        Turn("customer", "oldest"),
        Turn("customer", "x" * 900),
        Turn("assistant", "y" * 900),
    ]
    asked = query("z" * (PROMPT_CHARS + 500), history=history)
    long_article = Article("L", "Long?", "word " * PROMPT_CHARS, "Account")
    await answer(model, understood(asked, (passage(long_article, 0.7),)))
    prompt = model.calls[0][1].content
    assert "oldest" not in prompt
    assert 0 < prompt.count("x" * 100) <= 4
    assert prompt.count("z") == PROMPT_CHARS
    assert len(prompt) < 3 * PROMPT_CHARS


async def test_the_model_is_asked_for_a_short_draft() -> None:
    wordy = ScriptedModel([" ".join(["word"] * 5 * ANSWER_MAX_TOKENS)])
    given, _ = await answer(wordy, understood(query(), FOUND))
    assert given.tokens.generated <= ANSWER_MAX_TOKENS
    assert given.mode == "curated"


@pytest.mark.parametrize("intent", ["thanks", "greeting", "offtopic", "confirmation"])
async def test_small_talk_is_answered_without_the_model(intent: Intent) -> None:
    model = ScriptedModel()
    weak = understood(query("hello"), WEAK, intent=intent)
    given, _ = await answer(model, weak, "general")
    assert (given.outcome, given.mode, given.citations) == ("smalltalk", "none", ())
    assert given.response == wording.SMALLTALK[intent]
    assert model.calls == []


async def test_what_looks_off_topic_but_has_an_article_is_a_question() -> None:
    model = ScriptedModel([HOURS.answer])
    state = understood(query("hours. sigh."), (passage(HOURS, 0.8),), intent="offtopic")
    given, _ = await answer(model, state, "general")
    assert given.outcome == "answered"
    assert HOURS.answer in given.response


async def test_the_same_question_gets_the_same_answer() -> None:
    model = ScriptedModel(lambda messages: f"{PARTS[1]} {messages[1].content[:20]}")
    first, _ = await answer(model, understood(query(), FOUND))
    second, _ = await answer(model, understood(query(), FOUND))
    assert (first.response, first.citations) == (second.response, second.citations)


async def test_one_agent_serves_many_queries_at_once() -> None:
    agent = GeneralAgent(ScriptedModel([PASSWORD.answer], delay=0.001), "account")

    async def one(found: tuple[Passage, ...]) -> str:
        heard = Heard()
        update = await agent(understood(query(), found), Run(heard))
        assert heard.text == update["answer"].response
        return update["answer"].citations[0].id

    wanted = [FOUND[:1], (passage(HOURS, 0.7),)] * 4
    cited = await asyncio.gather(*(one(found) for found in wanted))
    assert cited == [found[0].article.id for found in wanted]


# --- quoted answers -------------------------------------------------------------------------------


async def quoted(
    model: ChatModel, left: asyncio.Event | None = None, found: tuple[Passage, ...] = FOUND
) -> Answer:
    run, _ = run_heard()
    run.left = left or run.left
    responder = Responder(model, "account", "quoted")
    update = await responder(understood(query("How do I reset it?"), passages=found), run)
    return update["answer"]


async def test_a_quoted_answer_says_the_chosen_sentences_in_the_articles_order() -> None:
    given = await quoted(ScriptedModel(["3, 1"]))
    assert given.mode == "quoted"
    assert given.response.endswith(f"\n\n{PARTS[0]} {PARTS[2]}")
    assert [citation.id for citation in given.citations] == [PASSWORD.id]
    assert given.tokens.prompt > 0


async def test_without_a_model_a_quoted_answer_is_the_article() -> None:
    for model in (ScriptedModel(fail_after=0), RejectingModel()):
        given = await quoted(model)
        assert given.mode == "curated"
        assert given.response.endswith(" ".join(PARTS))


async def test_a_customer_who_left_is_quoted_nothing_more() -> None:
    left = asyncio.Event()
    left.set()
    given = await quoted(ScriptedModel(["1"]), left)
    assert given.mode == "curated"


async def test_curated_answers_ask_no_model() -> None:
    model = ScriptedModel(["1"])
    run, _ = run_heard()
    responder = Responder(model, "account", "curated")
    update = await responder(understood(query("How do I reset it?"), passages=FOUND), run)
    assert (update["answer"].mode, model.calls) == ("curated", [])

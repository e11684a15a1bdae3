"""The whole use case on both databases: a message comes in, an answer goes out, both are stored.

Storage, knowledge base, graph and agents are the real ones; the reader is a stub that looks for
words, vectors are the hashed twin's, and the model says what its script says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from structlog.testing import capture_logs

from appliance.answering import wording
from appliance.domain import policy
from appliance.domain.passage import Article
from appliance.domain.policy import Category, Intent, Sentiment
from appliance.errors import (
    ApplianceError,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    Unauthenticated,
)
from appliance.graph.build import SupportGraph
from appliance.knowledge.base import KnowledgeBase
from appliance.knowledge.embedding import EncodingBridge, HashedEmbedder
from appliance.llm.interface import ChatModel, Chunk
from appliance.llm.scripted import ScriptedModel
from appliance.services import interruptions
from appliance.services import visitors as visitor_sessions
from appliance.services.access import OPERATOR, Access, Principal
from appliance.services.answer_query import AnswerQuery, Ask
from appliance.services.conversations import Conversations, case_reference
from appliance.services.interruptions import Interruptions
from appliance.services.knowledge import Knowledge, StoredArticles, save_articles
from appliance.services.query_result import QueryResult
from appliance.services.users import Users
from appliance.services.visitors import Visitors
from appliance.storage import Database, Records
from appliance.storage.conversations import ConversationRepository
from appliance.storage.events import EventRepository
from appliance.storage.messages import MessageRepository
from appliance.storage.records import Conversation, Message
from appliance.storage.tables import analytics_events, conversations, feedback, messages, users
from appliance.storage.whole import digest
from appliance.understanding.phrases import asks_for_person
from tests.builders import (
    CRASH,
    HOURS,
    PASSWORD,
    REFUND,
    SMALL_BASE,
    FixedReading,
    Heard,
    PacedStream,
    StreamModel,
    make_agents,
    said,
    settle,
)

pytestmark = pytest.mark.anyio

SHOP = Principal("customer", "key:shop")
"""A key of a shop's server, which speaks for all its customers."""
OTHER_SHOP = Principal("customer", "key:other")
ADA = Principal("customer", "key:ada", "ada")
BOB = Principal("customer", "key:bob", "bob")
AGENT = Principal("agent", "key:agent")

FAILURE = "That did not help"
CONFIRMATION = "Great, it works now"


def read_category(text: str) -> Category:
    for word, category in (("password", "Account"), ("refund", "Billing"), ("crash", "Technical")):
        if word in text.lower():
            return category  # type: ignore[return-value]
    return "General"


def read_mood(text: str) -> Sentiment:
    for word, mood in (("furious", "Angry"), ("sad", "Negative"), ("great", "Positive")):
        if word in text.lower():
            return mood  # type: ignore[return-value]
    return "Neutral"


def read_intent(text: str) -> Intent:
    """What the shipped heads say of such words, those of "yes" and its like included."""
    for word, intent in (
        ("did not help", "failure"),
        ("it works", "confirmation"),
        ("thank", "thanks"),
        ("sure", "thanks"),
        ("ok", "greeting"),
        ("yes please", "offtopic"),
        ("yes, please", "offtopic"),
        ("yes", "confirmation"),
        ("no", "failure"),
    ):
        if text.lower().startswith(word) or f" {word}" in text.lower():
            return intent  # type: ignore[return-value]
    return "question"


class Desk:
    """The services over one database."""

    def __init__(self, database: Database, bridge: EncodingBridge, folder: Path) -> None:
        self.database = database
        self.conversations = Conversations(database)
        self.base = KnowledgeBase(StoredArticles(database), bridge, folder)
        self.knowledge = Knowledge(database, bridge, self.base)
        self._bridge = bridge
        self.answers = self.with_model(ScriptedModel([PASSWORD.answer]))

    def with_model(self, model: ChatModel) -> AnswerQuery:
        self.model = model
        reading = FixedReading(read_category, read_mood, read_intent, asks_for_person)
        agents = make_agents(model, reading=reading, search=self.base, encoder=self._bridge)
        self.answers = AnswerQuery(self.database, SupportGraph(agents), lambda: "scripted")
        return self.answers

    async def begin(
        self,
        text: str,
        *,
        user: str = "ada",
        conversation: str | None = None,
        by: Principal = SHOP,
        left: asyncio.Event | None = None,
        heard: Heard | None = None,
    ) -> asyncio.Task[QueryResult]:
        accepted = await self.answers.accept(Ask(user, text, conversation), by)
        return self.answers.start(accepted, heard or Heard(), left or asyncio.Event())

    async def ask(self, text: str, **context: Any) -> QueryResult:
        return await asyncio.wait_for(await self.begin(text, **context), 20)

    async def conversation(self, conversation_id: str) -> Conversation:
        found = await self.database.read(lambda r: r.conversations.get(conversation_id))
        assert found is not None
        return found

    async def messages(self, conversation_id: str) -> list[Message]:
        return list(await self.database.read(lambda r: r.messages.list(conversation_id)))

    async def states(self, conversation_id: str) -> list[tuple[str, str]]:
        return [(m.role, m.state) for m in await self.messages(conversation_id)]

    async def shown(self, conversation_id: str) -> list[str]:
        found = await self.conversations.messages(OPERATOR, conversation_id)
        return [message.state for message in found]

    async def events(self) -> list[str]:
        """Types of all events, in the order in which they happened."""
        order = (analytics_events.c.created_at, analytics_events.c.type)
        statement = select(analytics_events.c.type).order_by(*order)
        return list(await self.database.read(lambda r: list(_connection(r).scalars(statement))))

    async def counts(self) -> dict[str, int]:
        """Rows of every table that a query may touch."""

        def count(records: Records) -> dict[str, int]:
            return {
                table.name: _connection(records).scalar(select(func.count()).select_from(table))
                or 0
                for table in (users, conversations, messages, feedback, analytics_events)
            }

        return await self.database.read(count)

    async def age(self, conversation_id: str, by: timedelta) -> None:
        """Let a conversation have been updated that long ago."""
        then = datetime.now(UTC) - by
        changed = update(conversations).where(conversations.c.id == conversation_id)
        await self.database.write(
            lambda r: _connection(r).execute(changed.values(updated_at=then)).rowcount
        )


def _connection(records: Records) -> Any:
    return records.events._connection


@pytest.fixture
async def desk(database: Database, tmp_path: Path) -> AsyncIterator[Desk]:
    bridge = EncodingBridge(HashedEmbedder())
    await save_articles(database, SMALL_BASE, replace=True)
    desk = Desk(database, bridge, tmp_path / "index")
    yield desk
    await desk.answers.drain()
    bridge.close()


# --- one message ----------------------------------------------------------------------------------


async def test_an_answer_and_all_that_led_to_it_are_stored(desk: Desk) -> None:
    heard = Heard()
    before = datetime.now(UTC)
    result = await desk.ask(PASSWORD.question, heard=heard)

    assert (result.category, result.sentiment, result.priority) == ("Account", "Neutral", 3)
    assert result.metadata.outcome == "answered"
    assert result.metadata.mode == "drafted"
    assert result.metadata.model == "scripted"
    assert [c.id for c in result.metadata.citations] == [PASSWORD.id]
    assert result.response == heard.text
    assert PASSWORD.answer in result.response
    assert len(result.metadata.kb_results) >= 3
    assert result.metadata.kb_results[0]["id"] == PASSWORD.id
    assert result.metadata.failures == ()
    assert not result.metadata.escalated
    assert result.metadata.processing_time > 0
    assert before <= result.timestamp <= datetime.now(UTC)

    asked, replied = await desk.messages(result.conversation_id)
    assert (asked.role, asked.content, asked.state) == ("customer", PASSWORD.question, "answered")
    assert (asked.category, asked.outcome, asked.details) == (None, None, {})
    assert (replied.role, replied.state, replied.reply_to) == ("assistant", "sent", asked.id)
    assert (replied.id, replied.content) == (result.message_id, result.response)
    assert (replied.category, replied.sentiment, replied.priority) == ("Account", "Neutral", 3)
    assert (replied.outcome, replied.mode, replied.escalated) == ("answered", "drafted", False)
    assert replied.details["kb_results"] == result.metadata.kb_results
    assert replied.details["citations"] == [{"id": PASSWORD.id, "title": PASSWORD.question}]
    assert replied.details["tokens"] == asdict(result.metadata.tokens)
    assert replied.details["stages"] == result.metadata.stages
    assert replied.details["cut"] == []

    conversation = await desk.conversation(result.conversation_id)
    assert (conversation.user_id, conversation.owner) == ("ada", "key:shop")
    assert conversation.title == PASSWORD.question
    assert (conversation.status, conversation.category, conversation.priority) == (
        *("open", "Account"),
        3,
    )
    assert (conversation.topic_article_id, conversation.topic_question) == (
        PASSWORD.id,
        PASSWORD.question,
    )
    assert (conversation.attempts, conversation.escalation_reason) == (1, None)
    assert conversation.case_reference is None
    assert await desk.events() == ["kb.updated", "query.created", "response.generated"]


async def test_the_message_is_stored_before_any_thinking(desk: Desk) -> None:
    accepted = await desk.answers.accept(Ask("ada", "  Hello\u200b there \n"), SHOP)
    (stored,) = await desk.messages(accepted.conversation.id)
    assert (stored.content, stored.state) == ("Hello there", "received")
    assert (await desk.conversation(accepted.conversation.id)).title == "Hello there"


@pytest.mark.parametrize("text", ["", "   ", "\u200b\x00\n", "x" * (policy.MESSAGE_MAX_CHARS + 1)])
async def test_what_is_no_message_is_refused_and_leaves_nothing(desk: Desk, text: str) -> None:
    before = await desk.counts()
    with pytest.raises(InvalidInput):
        await desk.ask(text)
    assert await desk.counts() == before


@pytest.mark.parametrize("user", ["", " ", "\u200b", "x" * (policy.ID_MAX_CHARS + 1)])
async def test_what_is_no_user_is_refused_and_leaves_nothing(desk: Desk, user: str) -> None:
    before = await desk.counts()
    with pytest.raises(InvalidInput):
        await desk.ask("Hello?", user=user)
    assert await desk.counts() == before


async def test_the_longest_message_and_odd_characters_are_answered(desk: Desk) -> None:
    for text in ("x" * policy.MESSAGE_MAX_CHARS, "Ünïcödé 😀 \x00 nul", "'; DROP TABLE users; --"):
        result = await desk.ask(text)
        assert result.response
    assert len((await desk.ask("word " * 100)).response) > 0


async def test_an_escalated_message_is_handed_over_with_its_case(desk: Desk) -> None:
    result = await desk.ask("My lawyer wants a refund", user="eve")
    conversation = await desk.conversation(result.conversation_id)
    reference = case_reference(result.conversation_id)
    assert result.metadata.outcome == "handoff"
    assert result.metadata.escalated
    assert result.metadata.escalation_reason == "phrase"
    assert "escalated" in result.metadata.flags
    assert reference in result.response
    assert len(result.metadata.kb_results) >= 3
    assert (conversation.status, conversation.escalation_reason, conversation.case_reference) == (
        *("escalated", "phrase"),
        reference,
    )
    assert "conversation.escalated" in await desk.events()
    assert (await desk.messages(conversation.id))[1].escalated


async def test_a_draft_that_was_cut_short_still_names_its_model(desk: Desk) -> None:
    first = PASSWORD.answer.split(". ")[0] + "."
    desk.with_model(ScriptedModel([f"{first} Our robots will do it for you tomorrow. And more."]))
    result = await desk.ask(PASSWORD.question)
    (_, stored) = await desk.messages(result.conversation_id)
    assert result.metadata.mode == "drafted"
    assert result.metadata.model == "scripted"
    assert stored.details["cut"] == ["Our robots will do"]
    assert "robots" not in result.response


async def test_without_the_model_no_model_is_named(desk: Desk) -> None:
    desk.with_model(ScriptedModel(fail_after=0))
    result = await desk.ask(PASSWORD.question)
    assert (result.metadata.outcome, result.metadata.mode) == ("answered", "curated")
    assert result.metadata.model is None
    assert result.metadata.tokens.generated == 0


async def test_an_import_is_visible_to_the_next_query(desk: Desk) -> None:
    voucher = Article("90", "Do you sell gift vouchers?", "Vouchers cost 20 coins each.", "Billing")
    assert (await desk.ask(voucher.question)).metadata.kb_results[0]["id"] != "90"
    await save_articles(desk.database, [voucher], replace=False)
    desk.with_model(ScriptedModel(fail_after=0))
    result = await desk.ask(voucher.question)
    assert result.metadata.kb_results[0]["id"] == "90"
    assert voucher.answer in result.response
    found = await desk.knowledge.search("gift vouchers", limit=1)
    assert found[0].article == voucher


async def test_an_empty_knowledge_base_abstains_and_offers_a_person(desk: Desk) -> None:
    await save_articles(desk.database, [], replace=True)
    result = await desk.ask(PASSWORD.question)
    assert (result.metadata.outcome, result.metadata.kb_results) == ("abstained", [])
    assert "person" in result.response


async def test_no_log_line_holds_what_the_customer_or_the_desk_wrote(desk: Desk) -> None:
    with capture_logs() as lines:
        await desk.ask("zebra password crash", user="zebra-user")
        await desk.ask("My lawyer knows the zebra")
        with pytest.raises(NotFound):
            await desk.ask("zebra", conversation="nothing")
    assert {"query_answered"} <= {line["event"] for line in lines}
    text = repr(lines)
    assert "zebra" not in text
    assert PASSWORD.answer[:30] not in text


# --- conversations --------------------------------------------------------------------------------


async def test_a_conversation_goes_on(desk: Desk) -> None:
    first = await desk.ask(PASSWORD.question)
    second = await desk.ask(REFUND.question, conversation=first.conversation_id)
    assert second.conversation_id == first.conversation_id
    stored = await desk.messages(first.conversation_id)
    assert [message.seq for message in stored] == [1, 2, 3, 4]
    assert stored[3].reply_to == stored[2].id
    conversation = await desk.conversation(first.conversation_id)
    assert (conversation.title, conversation.category) == (PASSWORD.question, "Billing")
    assert (conversation.topic_article_id, conversation.attempts) == (REFUND.id, 1)
    assert (await desk.counts())["conversations"] == 1


async def test_the_agents_see_the_latest_turns_but_not_the_message_twice(desk: Desk) -> None:
    model = ScriptedModel([PASSWORD.answer])
    desk.with_model(model)
    first = await desk.ask(PASSWORD.question)
    await desk.ask("Is a password of 9 letters fine?", conversation=first.conversation_id)
    prompt = model.calls[-1][1].content
    assert PASSWORD.question in prompt
    assert prompt.count("9 letters") == 1


@pytest.mark.parametrize(
    ("by", "user"),
    [(OTHER_SHOP, "ada"), (BOB, "bob"), (SHOP, "bob"), (OPERATOR, "bob"), (AGENT, "bob")],
    ids=["another key", "another's own key", "other user", "operator, other user", "agent, other"],
)
async def test_a_conversation_of_somebody_else_does_not_exist(
    desk: Desk, by: Principal, user: str
) -> None:
    mine = await desk.ask(PASSWORD.question)
    before = await desk.counts()
    with pytest.raises(NotFound) as foreign:
        await desk.ask("What is in here?", conversation=mine.conversation_id, by=by, user=user)
    with pytest.raises(NotFound) as unknown:
        await desk.ask("What is in here?", conversation="nothing", by=by, user=user)
    assert foreign.value.detail == unknown.value.detail, "the two look the same"
    assert await desk.counts() == before, "not even the user is left behind"


@pytest.mark.parametrize("by", [SHOP, ADA, OPERATOR, AGENT])
async def test_who_may_see_a_conversation_may_go_on_with_it(desk: Desk, by: Principal) -> None:
    mine = await desk.ask(PASSWORD.question)
    again = await desk.ask(REFUND.question, conversation=mine.conversation_id, by=by)
    assert again.conversation_id == mine.conversation_id


async def test_a_key_tied_to_a_user_speaks_for_nobody_else(desk: Desk) -> None:
    before = await desk.counts()
    with pytest.raises(Forbidden):
        await desk.ask("Hello?", user="bob", by=ADA)
    assert await desk.counts() == before
    assert (await desk.ask("Hello?", user="ada", by=ADA)).conversation_id


# --- priority -------------------------------------------------------------------------------------


async def test_the_same_question_within_a_week_is_two_more_urgent(desk: Desk) -> None:
    first = await desk.ask(PASSWORD.question)
    second = await desk.ask(PASSWORD.question)
    other_user = await desk.ask(PASSWORD.question, user="bob")
    other_question = await desk.ask(REFUND.question)
    assert (first.priority, second.priority) == (3, 5)
    assert second.conversation_id != first.conversation_id
    assert other_user.priority == 3
    assert other_question.priority == 3
    assert (await desk.conversation(second.conversation_id)).priority == 5


async def test_asking_again_in_the_same_conversation_is_an_attempt_and_no_repeat(
    desk: Desk,
) -> None:
    first = await desk.ask(PASSWORD.question)
    again = await desk.ask(PASSWORD.question, conversation=first.conversation_id)
    assert again.priority == 3
    assert (await desk.conversation(first.conversation_id)).attempts == 2


@pytest.mark.parametrize(
    ("age", "priority"),
    [(timedelta(days=6, hours=23), 5), (timedelta(days=7, hours=1), 3)],
    ids=["just within", "just past"],
)
async def test_a_week_is_a_week(desk: Desk, age: timedelta, priority: int) -> None:
    first = await desk.ask(PASSWORD.question)
    await desk.age(first.conversation_id, age)
    assert (await desk.ask(PASSWORD.question)).priority == priority


async def test_what_was_resolved_is_no_repeat(desk: Desk) -> None:
    first = await desk.ask(PASSWORD.question)
    await desk.ask(CONFIRMATION, conversation=first.conversation_id)
    assert (await desk.ask(PASSWORD.question)).priority == 3


async def test_what_was_handed_over_and_is_open_is_a_repeat(desk: Desk) -> None:
    first = await desk.ask(PASSWORD.question)
    await desk.conversations.escalate(SHOP, first.conversation_id, None)
    assert (await desk.ask(PASSWORD.question)).priority == 5


async def test_vip_is_two_more_urgent_and_adds_up(desk: Desk) -> None:
    await Users(desk.database).put(OPERATOR, "ada", name=None, email=None, vip=True)
    assert (await desk.ask(PASSWORD.question)).priority == 5
    assert (await desk.ask(PASSWORD.question)).priority == 7
    sad = await desk.ask(f"I am sad. {PASSWORD.question}")
    assert sad.priority == 9
    assert sad.metadata.escalation_reason == "priority"


@pytest.mark.parametrize("spelling", ["Jose\u0301", " José ", "Jos\u200bé"])
async def test_a_user_is_the_same_however_their_id_is_encoded(desk: Desk, spelling: str) -> None:
    await Users(desk.database).put(OPERATOR, spelling, name=None, email=None, vip=True)
    assert (await desk.ask(PASSWORD.question, user="José")).priority == 5
    key = await Access(desk.database).create_key("customer", user_id=spelling)
    principal = await Access(desk.database).authenticate(key.key)
    result = await desk.ask(REFUND.question, user=spelling, by=principal)
    assert (await desk.conversation(result.conversation_id)).user_id == "José"


# --- attempts and status --------------------------------------------------------------------------


async def test_the_third_failure_hands_over(desk: Desk) -> None:
    first = await desk.ask(PASSWORD.question)
    second = await desk.ask(FAILURE, conversation=first.conversation_id)
    assert second.metadata.outcome != "handoff"
    assert PASSWORD.answer not in second.response, "what did not help is not told again"
    assert (await desk.conversation(first.conversation_id)).attempts == 2
    third = await desk.ask(FAILURE, conversation=first.conversation_id)
    assert third.metadata.escalation_reason == "attempts"
    conversation = await desk.conversation(first.conversation_id)
    assert (conversation.attempts, conversation.status) == (3, "escalated")


async def test_a_new_topic_starts_counting_anew(desk: Desk) -> None:
    first = await desk.ask(PASSWORD.question)
    await desk.ask(FAILURE, conversation=first.conversation_id)
    await desk.ask(REFUND.question, conversation=first.conversation_id)
    fourth = await desk.ask(FAILURE, conversation=first.conversation_id)
    assert fourth.metadata.outcome != "handoff"
    assert (await desk.conversation(first.conversation_id)).attempts == 2


async def test_a_confirmation_resolves_and_a_new_question_reopens(desk: Desk) -> None:
    first = await desk.ask(PASSWORD.question)
    await desk.ask(FAILURE, conversation=first.conversation_id)
    solved = await desk.ask(CONFIRMATION, conversation=first.conversation_id)
    assert solved.metadata.outcome == "smalltalk"
    conversation = await desk.conversation(first.conversation_id)
    assert (conversation.status, conversation.attempts) == ("resolved", 0)
    await desk.ask(REFUND.question, conversation=first.conversation_id)
    conversation = await desk.conversation(first.conversation_id)
    assert (conversation.status, conversation.attempts) == ("open", 1)


async def test_thanks_after_a_solution_leave_it_solved(desk: Desk) -> None:
    first = await desk.ask(PASSWORD.question)
    await desk.ask(CONFIRMATION, conversation=first.conversation_id)
    await desk.ask("thank you, bye", conversation=first.conversation_id)
    assert (await desk.conversation(first.conversation_id)).status == "resolved"


@pytest.mark.parametrize("later", [REFUND.question, CONFIRMATION, "thank you", "furious again"])
async def test_escalated_stays_escalated_until_a_person_says_otherwise(
    desk: Desk, later: str
) -> None:
    first = await desk.ask("Let me speak to a human")
    reference = (await desk.conversation(first.conversation_id)).case_reference
    await desk.ask(later, conversation=first.conversation_id)
    conversation = await desk.conversation(first.conversation_id)
    assert conversation.status == "escalated"
    assert conversation.case_reference == reference
    assert (await desk.events()).count("conversation.escalated") == 1


UNKNOWN = "Where do giraffes sleep?"


@pytest.mark.parametrize(
    "assent", ["Yes", "yes please", "Yes, please do.", "yes, pass it on", "Sure", "OK", "ok yes!"]
)
async def test_who_accepts_the_offer_of_a_person_gets_one(desk: Desk, assent: str) -> None:
    """The desk itself asked: "Would you like me to pass your question to a person?"."""
    first = await desk.ask(UNKNOWN)
    assert first.response.endswith(wording.OFFER)
    second = await desk.ask(assent, conversation=first.conversation_id)
    assert second.metadata.outcome == "handoff"
    assert second.metadata.escalation_reason == "person"
    assert (await desk.conversation(first.conversation_id)).status == "escalated"


@pytest.mark.parametrize("refusal", ["No thanks", "no", "No, I will look myself, thank you"])
async def test_who_declines_the_offer_of_a_person_is_not_handed_over(
    desk: Desk, refusal: str
) -> None:
    first = await desk.ask(UNKNOWN)
    second = await desk.ask(refusal, conversation=first.conversation_id)
    assert second.metadata.outcome != "handoff"
    assert (await desk.conversation(first.conversation_id)).status != "escalated"


@pytest.mark.parametrize("assent", ["Yes", "OK"])
async def test_a_yes_to_an_answer_asks_for_nobody(desk: Desk, assent: str) -> None:
    first = await desk.ask(PASSWORD.question)
    second = await desk.ask(assent, conversation=first.conversation_id)
    assert second.metadata.outcome == "smalltalk"


async def test_two_cases_never_share_a_reference_nor_fail_over_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is short: two conversations may begin with the same eight digits."""
    ids = iter(["deadbeef" + digit * 24 for digit in "01"])
    monkeypatch.setattr("appliance.storage.conversations.new_id", lambda: next(ids))
    first = await desk.ask("My lawyer will call you", user="ada")
    second = await desk.ask("My lawyer will call you", user="bob")
    references = {
        (await desk.conversation(result.conversation_id)).case_reference
        for result in (first, second)
    }
    assert len(references) == 2
    for result in (first, second):
        reference = (await desk.conversation(result.conversation_id)).case_reference
        assert reference is not None
        assert reference in result.response, "the customer was told the reference that is stored"


# --- failures and leaving -------------------------------------------------------------------------

REPOSITORIES: dict[str, tuple[type, str]] = {
    "the reply": (MessageRepository, "add"),
    "the state of the message": (MessageRepository, "set_state"),
    "the conversation": (ConversationRepository, "update"),
    "the event": (EventRepository, "add"),
}


@pytest.mark.parametrize("step", REPOSITORIES)
async def test_an_answer_is_stored_whole_or_not_at_all(
    desk: Desk, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = await desk.answers.accept(Ask("ada", "My lawyer will call you"), SHOP)
    before = await desk.counts()
    repository, method = REPOSITORIES[step]
    real = getattr(repository, method)

    def breaking(*args: Any, **kwargs: Any) -> Any:
        real(*args, **kwargs)
        raise RuntimeError("told to fail")

    with monkeypatch.context() as broken:
        broken.setattr(repository, method, breaking)
        with pytest.raises(RuntimeError, match="told to fail"):
            await desk.answers.start(accepted, Heard(), asyncio.Event())

    assert await desk.counts() == before
    assert await desk.states(accepted.conversation.id) == [("customer", "received")]
    conversation = await desk.conversation(accepted.conversation.id)
    assert (conversation.status, conversation.case_reference) == ("open", None)
    assert (conversation.topic_question, conversation.category) == (None, None)

    # The customer asks again, and nothing of the failure stands in the way.
    again = await desk.ask(PASSWORD.question, conversation=accepted.conversation.id)
    assert again.metadata.outcome == "answered"


async def test_an_interrupted_message_is_shown_as_such_after_a_restart(desk: Desk) -> None:
    accepted = await desk.answers.accept(Ask("ada", PASSWORD.question), SHOP)
    assert await desk.shown(accepted.conversation.id) == ["received"]
    await Interruptions(desk.database, alone=False).close_left_behind()
    assert await desk.shown(accepted.conversation.id) == ["received"], "somebody may be at it"
    await Interruptions(desk.database, alone=True).close_left_behind()
    assert await desk.states(accepted.conversation.id) == [("customer", "failed")]
    assert await desk.shown(accepted.conversation.id) == ["interrupted"]
    again = await desk.ask(PASSWORD.question, conversation=accepted.conversation.id)
    assert await desk.shown(again.conversation_id) == ["interrupted", "answered", "sent"]


async def test_an_interrupted_message_is_shown_as_such_once_nobody_can_answer_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = await desk.answers.accept(Ask("ada", PASSWORD.question), SHOP)
    monkeypatch.setattr(policy, "QUERY_DEADLINE_SECONDS", -1.0)
    assert await desk.shown(accepted.conversation.id) == ["interrupted"]


async def test_a_message_whose_answer_could_not_be_stored_gets_its_final_state_without_a_restart(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = await desk.answers.accept(Ask("ada", PASSWORD.question), SHOP)
    monkeypatch.setattr(interruptions, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(interruptions, "LONGEST_ANSWER", timedelta())
    watching = asyncio.create_task(Interruptions(desk.database, alone=False).watch())
    async with asyncio.timeout(5):
        while await desk.states(accepted.conversation.id) == [("customer", "received")]:
            await asyncio.sleep(0.01)
    watching.cancel()
    assert await desk.states(accepted.conversation.id) == [("customer", "failed")]


async def test_answered_messages_are_never_marked_as_interrupted(desk: Desk) -> None:
    result = await desk.ask(PASSWORD.question)
    await Interruptions(desk.database, alone=True).close_left_behind()
    assert await desk.shown(result.conversation_id) == ["answered", "sent"]


async def test_a_customer_who_leaves_leaves_a_stored_answer(desk: Desk) -> None:
    stream = PacedStream(said("A forgotten ", finish=None), stall_after=1)
    desk.with_model(StreamModel(stream))
    left = asyncio.Event()
    answering = await desk.begin(PASSWORD.question, left=left)
    await asyncio.wait_for(stream.stalled.wait(), 5)
    left.set()
    result = await asyncio.wait_for(answering, 5)
    await settle()
    assert stream.closed, "the model stops"
    assert result.metadata.mode == "curated"
    stored = await desk.messages(result.conversation_id)
    assert [m.state for m in stored] == ["answered", "sent"]
    assert PASSWORD.answer in stored[1].content


async def test_a_model_that_takes_for_ever_is_given_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "MODEL_DEADLINE_SECONDS", 0.05)
    desk.with_model(StreamModel(PacedStream(said("A ", finish=None), stall_after=1)))
    result = await asyncio.wait_for(await desk.begin(PASSWORD.question), 5)
    assert (result.metadata.outcome, result.metadata.mode) == ("answered", "curated")


async def test_a_request_that_is_cancelled_does_not_undo_what_was_accepted(desk: Desk) -> None:
    desk.with_model(ScriptedModel([PASSWORD.answer], delay=0.002))
    answering = await desk.begin(PASSWORD.question)
    waiting = asyncio.ensure_future(asyncio.shield(answering))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.wait_for(desk.answers.drain(), 10)
    assert answering.done()
    result = answering.result()
    assert await desk.states(result.conversation_id) == [
        ("customer", "answered"),
        ("assistant", "sent"),
    ]


async def test_draining_waits_for_every_answer_under_way(desk: Desk) -> None:
    desk.with_model(ScriptedModel([PASSWORD.answer], delay=0.002))
    tasks = [await desk.begin(PASSWORD.question, user=f"user-{n}") for n in range(3)]
    await asyncio.wait_for(desk.answers.drain(), 20)
    assert all(task.done() and task.exception() is None for task in tasks)
    await desk.answers.drain()


# --- at once --------------------------------------------------------------------------------------


async def test_two_messages_at_once_in_one_conversation_are_both_answered(desk: Desk) -> None:
    first = await desk.ask(PASSWORD.question)
    both = [await desk.begin(text, conversation=first.conversation_id) for text in
            (REFUND.question, CRASH.question)]  # fmt: skip
    results = await asyncio.wait_for(asyncio.gather(*both), 20)
    stored = await desk.messages(first.conversation_id)
    assert [message.seq for message in stored] == [1, 2, 3, 4, 5, 6]
    replies = {m.reply_to: m.id for m in stored if m.role == "assistant"}
    asked = {m.content: m.id for m in stored if m.role == "customer"}
    assert replies[asked[REFUND.question]] == results[0].message_id
    assert replies[asked[CRASH.question]] == results[1].message_id
    assert {m.state for m in stored if m.role == "customer"} == {"answered"}


async def test_two_failures_at_once_count_twice(desk: Desk) -> None:
    first = await desk.ask(PASSWORD.question)
    both = [
        await desk.begin(text, conversation=first.conversation_id)
        for text in (FAILURE, f"{FAILURE} at all")
    ]
    results = await asyncio.wait_for(asyncio.gather(*both), 20)
    conversation = await desk.conversation(first.conversation_id)
    assert (conversation.attempts, conversation.status) == (3, "escalated")
    assert [r.metadata.outcome == "handoff" for r in results] == [False, True]


async def test_a_slow_answer_holds_up_its_own_conversation_only(desk: Desk) -> None:
    stream = PacedStream(said("A forgotten ", finish=None), stall_after=1)
    desk.with_model(StreamModel(stream))
    left = asyncio.Event()
    slow = await desk.begin(PASSWORD.question, left=left)
    await asyncio.wait_for(stream.stalled.wait(), 5)
    handed_over = await asyncio.wait_for(await desk.begin("My lawyer will call you", user="bob"), 5)
    assert handed_over.metadata.outcome == "handoff"
    assert not slow.done()
    left.set()
    await asyncio.wait_for(slow, 5)


async def test_many_customers_at_once_each_get_their_own_answer(desk: Desk) -> None:
    desk.with_model(ScriptedModel(fail_after=0))
    articles = [*SMALL_BASE] * 3
    tasks = [
        await desk.begin(article.question, user=f"user-{number}")
        for number, article in enumerate(articles)
    ]
    results = await asyncio.wait_for(asyncio.gather(*tasks), 30)
    for article, result in zip(articles, results, strict=True):
        assert article.answer in result.response
    assert (await desk.counts())["messages"] == 2 * len(articles)


# --- reading, rating, handing over ----------------------------------------------------------------


async def test_messages_are_shown_with_what_they_stand_on(desk: Desk) -> None:
    result = await desk.ask(PASSWORD.question)
    asked, replied = await desk.conversations.messages(SHOP, result.conversation_id)
    assert (asked.role, asked.state, asked.citations) == ("customer", "answered", [])
    assert (replied.id, replied.content) == (result.message_id, result.response)
    assert replied.citations == [{"id": PASSWORD.id, "title": PASSWORD.question}]
    assert replied.kb_results[0]["id"] == PASSWORD.id
    assert replied.rating is None


Attempt = Callable[[Desk, Principal, QueryResult], Awaitable[Any]]
ATTEMPTS: dict[str, Attempt] = {
    "read": lambda d, p, r: d.conversations.get(p, r.conversation_id),
    "read messages": lambda d, p, r: d.conversations.messages(p, r.conversation_id),
    "hand over": lambda d, p, r: d.conversations.escalate(p, r.conversation_id, None),
    "rate": lambda d, p, r: d.conversations.rate(p, r.message_id, "up", None),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
async def test_what_one_may_not_see_does_not_exist(desk: Desk, attempt: str) -> None:
    mine = await desk.ask(PASSWORD.question)
    before = await desk.counts()
    for stranger in (OTHER_SHOP, BOB, Principal("customer", "user:visitor-1", "visitor-1")):
        with pytest.raises(NotFound):
            await ATTEMPTS[attempt](desk, stranger, mine)
    assert await desk.counts() == before
    assert (await desk.conversation(mine.conversation_id)).status == "open"
    for friend in (SHOP, ADA, AGENT, OPERATOR):
        await ATTEMPTS[attempt](desk, friend, mine)


async def test_lists_hold_what_one_may_see(desk: Desk) -> None:
    mine = (await desk.ask("Question 1", user="ada")).conversation_id
    bobs = (await desk.ask("Question 2", user="bob")).conversation_id
    other = (await desk.ask("Question 3", user="ada", by=OTHER_SHOP)).conversation_id

    async def listed(principal: Principal, **filters: Any) -> list[str]:
        found = await desk.conversations.page(principal, limit=10, **filters)
        return [conversation.id for conversation in found]

    assert await listed(SHOP) == [bobs, mine]
    assert await listed(ADA) == [other, mine]
    assert await listed(ADA, user_id="bob") == [other, mine]
    assert await listed(SHOP, user_id="ada") == [mine]
    assert await listed(AGENT) == [other, bobs, mine]
    assert await listed(AGENT, user_id="bob") == [bobs]
    await desk.conversations.escalate(SHOP, mine, None)
    assert await listed(AGENT, status="escalated") == [mine]
    assert await listed(AGENT, status="open") == [other, bobs]
    assert len(await desk.conversations.page(AGENT, limit=1)) == 1
    assert len(await desk.conversations.page(AGENT, limit=-5)) == 1


async def test_a_thumb_is_stored_and_a_second_one_replaces_it(desk: Desk) -> None:
    result = await desk.ask(PASSWORD.question)
    await desk.conversations.rate(SHOP, result.message_id, "up", " \u200b ")
    latest = await desk.conversations.rate(SHOP, result.message_id, "down", " too long\x00 ")
    assert (latest.rating, latest.comment) == ("down", "too long")
    (_, replied) = await desk.conversations.messages(SHOP, result.conversation_id)
    assert replied.rating == "down"
    assert (await desk.counts())["feedback"] == 1
    assert (await desk.events()).count("feedback.received") == 2


async def test_only_the_desks_answers_can_be_rated(desk: Desk) -> None:
    result = await desk.ask(PASSWORD.question)
    asked = (await desk.messages(result.conversation_id))[0]
    before = await desk.counts()
    with pytest.raises(Conflict):
        await desk.conversations.rate(SHOP, asked.id, "up", None)
    with pytest.raises(NotFound):
        await desk.conversations.rate(SHOP, "nothing", "up", None)
    with pytest.raises(InvalidInput):
        await desk.conversations.rate(
            SHOP, result.message_id, "up", "x" * (policy.COMMENT_MAX_CHARS + 1)
        )
    with pytest.raises(ApplianceError):
        await desk.conversations.rate(SHOP, result.message_id, "sideways", None)  # type: ignore[arg-type]
    assert await desk.counts() == before


async def test_a_customer_may_ask_for_a_person(desk: Desk) -> None:
    result = await desk.ask(PASSWORD.question)
    handoff = await desk.conversations.escalate(SHOP, result.conversation_id, " please\u200b ")
    assert handoff.case_reference == case_reference(result.conversation_id)
    assert handoff.case_reference in handoff.response
    stored = await desk.messages(result.conversation_id)
    assert [(m.role, m.content) for m in stored[2:]] == [
        ("customer", "please"),
        ("assistant", handoff.response),
    ]
    assert (stored[3].id, stored[3].outcome, stored[3].escalated) == (
        *(handoff.message_id, "handoff"),
        True,
    )
    conversation = await desk.conversation(result.conversation_id)
    assert (conversation.status, conversation.escalation_reason) == ("escalated", "requested")
    assert conversation.case_reference == handoff.case_reference


async def test_asking_for_a_person_again_repeats_what_was_said(desk: Desk) -> None:
    result = await desk.ask(PASSWORD.question)
    first = await desk.conversations.escalate(SHOP, result.conversation_id, None)
    before = await desk.counts()
    assert await desk.conversations.escalate(SHOP, result.conversation_id, None) == first
    assert await desk.counts() == before
    await desk.conversations.escalate(SHOP, result.conversation_id, "Hurry up")
    contents = [message.content for message in await desk.messages(result.conversation_id)]
    assert "Hurry up" in contents
    assert (await desk.events()).count("conversation.escalated") == 1


async def test_who_was_handed_over_by_the_desk_gets_the_same_case(desk: Desk) -> None:
    result = await desk.ask("My lawyer will call you")
    handoff = await desk.conversations.escalate(SHOP, result.conversation_id, None)
    assert handoff.message_id == result.message_id
    conversation = await desk.conversation(result.conversation_id)
    assert conversation.escalation_reason == "phrase"


async def test_a_reason_that_is_too_long_is_refused(desk: Desk) -> None:
    result = await desk.ask(PASSWORD.question)
    with pytest.raises(InvalidInput):
        await desk.conversations.escalate(
            SHOP, result.conversation_id, "x" * (policy.COMMENT_MAX_CHARS + 1)
        )
    assert (await desk.conversation(result.conversation_id)).status == "open"


async def test_a_person_asked_for_while_an_answer_is_under_way_stays_asked_for(
    desk: Desk,
) -> None:
    stream = PacedStream(said("A forgotten ", finish=None), stall_after=1)
    desk.with_model(StreamModel(stream))
    left = asyncio.Event()
    answering = await desk.begin(PASSWORD.question, left=left)
    await asyncio.wait_for(stream.stalled.wait(), 5)
    (mine,) = await desk.conversations.page(SHOP, limit=5)
    await desk.conversations.escalate(SHOP, mine.id, None)
    left.set()
    await asyncio.wait_for(answering, 5)
    conversation = await desk.conversation(mine.id)
    assert (conversation.status, conversation.escalation_reason) == ("escalated", "requested")
    assert conversation.case_reference == case_reference(mine.id)


async def test_articles_are_read_and_searched_for_people_too(desk: Desk) -> None:
    assert await desk.knowledge.article(REFUND.id) == REFUND
    found = await desk.knowledge.search("refund policy", limit=2, category="Billing")
    assert [p.article for p in found][0:1] == [REFUND]
    assert len(found) == 2
    assert len(await desk.knowledge.search("refund", limit=0)) == 1
    with pytest.raises(NotFound):
        await desk.knowledge.article("nothing")
    with pytest.raises(InvalidInput):
        await desk.knowledge.search(" \u200b ", limit=3)


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["customer", "agent", "admin"])
async def test_a_key_stands_for_its_role_until_it_is_revoked(database: Database, role: Any) -> None:
    access = Access(database)
    made = await access.create_key(role, name="a shop")
    assert made.key.startswith("ssa_")
    principal = await access.authenticate(made.key)
    assert principal == Principal(role, f"key:{made.id}")
    await access.revoke_key(made.id)
    with pytest.raises(Unauthenticated):
        await access.authenticate(made.key)
    with pytest.raises(NotFound):
        await access.revoke_key(made.id)


async def test_the_key_itself_is_stored_nowhere(database: Database) -> None:
    access = Access(database)
    made = await access.create_key("admin")
    (listed,) = await access.list_keys()
    assert (listed.id, listed.name, listed.role) == (made.id, "admin", "admin")
    assert made.key not in repr(listed)
    assert made.key[4:] not in repr(listed)


async def test_a_key_expires(database: Database) -> None:
    access = Access(database)
    now = datetime.now(UTC)
    good = await access.create_key("agent", expires_at=now + timedelta(minutes=1))
    late = await access.create_key("agent", expires_at=now - timedelta(microseconds=1))
    assert (await access.authenticate(good.key)).role == "agent"
    with pytest.raises(Unauthenticated):
        await access.authenticate(late.key)


async def test_every_bad_key_is_refused_with_the_same_words(database: Database) -> None:
    access = Access(database)
    revoked = await access.create_key("agent")
    await access.revoke_key(revoked.id)
    expired = await access.create_key("agent", expires_at=datetime(2000, 1, 1, tzinfo=UTC))
    words = set()
    for key in ("", "ssa_", "ssa_nothing", revoked.key, expired.key, revoked.key[:-1], "ü\x00"):
        with pytest.raises(Unauthenticated) as error:
            await access.authenticate(key)
        words.add((error.value.detail, error.value.hint))
    assert len(words) == 1


async def test_a_customers_key_may_be_tied_to_a_user(database: Database) -> None:
    access = Access(database)
    made = await access.create_key("customer", user_id="ada")
    principal = await access.authenticate(made.key)
    assert principal.user_id == "ada"
    principal.speaks_for("ada")
    with pytest.raises(Forbidden):
        principal.speaks_for("bob")


@pytest.mark.parametrize(
    ("role", "user_id"),
    [
        ("root", None),
        ("", None),
        ("Admin", None),
        ("agent", "ada"),
        ("admin", "ada"),
        ("customer", ""),
        ("customer", "x" * (policy.ID_MAX_CHARS + 1)),
    ],
)
async def test_keys_that_make_no_sense_are_not_made(
    database: Database, role: str, user_id: str | None
) -> None:
    access = Access(database)
    with pytest.raises(InvalidInput):
        await access.create_key(role, user_id=user_id)
    assert await access.list_keys() == []


async def test_the_last_use_of_a_key_is_noted_but_not_at_every_request(database: Database) -> None:
    access = Access(database)
    made = await access.create_key("agent")
    (unused,) = await access.list_keys()
    assert unused.last_used_at is None
    await access.authenticate(made.key)
    (used,) = await access.list_keys()
    assert used.last_used_at is not None
    await access.authenticate(made.key)
    assert (await access.list_keys())[0].last_used_at == used.last_used_at


@pytest.mark.parametrize(
    ("role", "allowed"), [("customer", False), ("agent", True), ("admin", True)]
)
def test_a_role_opens_what_names_it(role: Any, allowed: bool) -> None:
    principal = Principal(role, "key:1")
    if allowed:
        principal.require("agent", "admin")
    else:
        with pytest.raises(Forbidden):
            principal.require("agent", "admin")


# --- visitors -------------------------------------------------------------------------------------

SECRET = b"s" * 32


def test_a_visitor_is_known_again_by_the_token() -> None:
    visitors = Visitors(SECRET)
    token = visitors.issue()
    principal = visitors.principal(token)
    assert principal == Visitors(SECRET).principal(token)
    assert principal.role == "customer"
    assert principal.user_id
    assert visitors.principal(visitors.issue()).user_id != principal.user_id


def forgeries() -> Sequence[str]:
    token = Visitors(SECRET).issue()
    value, stamp, signature = token.rsplit(".", 2)
    flipped = "A" if signature[0] != "A" else "B"
    return (
        "",
        "visitor-1",
        value,
        f"{value}.{stamp}",
        f"{value}.{stamp}.",
        f"{value}x.{stamp}.{signature}",
        f"{value}.{stamp}.{flipped}{signature[1:]}",
        f"{value}..{signature}",
        f"user:{token}",
        f"{token}.",
        token.upper(),
        token[::-1],
        Visitors(b"t" * 32).issue(),
        "ü" * 50,
        "\x00",
        "." * 1000,
    )


@pytest.mark.parametrize("number", range(16))
def test_a_forged_token_is_refused(number: int) -> None:
    with pytest.raises(Unauthenticated) as error:
        Visitors(SECRET).principal(forgeries()[number])
    assert "Reload" in error.value.hint


def test_an_expired_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    visitors = Visitors(SECRET)
    token = visitors.issue()
    visitors.principal(token)
    monkeypatch.setattr(visitor_sessions, "SESSION_SECONDS", -1)
    with pytest.raises(Unauthenticated):
        visitors.principal(token)


async def test_a_visitor_sees_their_own_conversations_only(desk: Desk) -> None:
    visitors = Visitors(SECRET)
    me, other = (visitors.principal(visitors.issue()) for _ in range(2))
    assert me.user_id is not None
    mine = await desk.ask(HOURS.question, user=me.user_id, by=me)
    assert [c.id for c in await desk.conversations.page(me, limit=5)] == [mine.conversation_id]
    assert await desk.conversations.page(other, limit=5) == []
    with pytest.raises(NotFound):
        await desk.conversations.messages(other, mine.conversation_id)
    with pytest.raises(Forbidden):
        await desk.ask("Hello?", user=me.user_id, by=other)


def test_a_paced_stream_tells_whether_it_was_closed() -> None:
    """The twin that the tests above rely on."""

    async def use() -> PacedStream:
        paced = PacedStream([Chunk("a"), Chunk("b")])
        stream = paced()
        assert (await anext(stream)).text == "a"
        assert not paced.closed
        await stream.aclose()
        return paced

    assert asyncio.run(use()).closed


# --- rehearsals -------------------------------------------------------------------------------


async def test_a_rehearsal_answers_and_leaves_nothing(desk: Desk, database_url: str) -> None:
    before = digest(database_url)
    ask = Ask("upgrade-probe", SMALL_BASE[0].question)
    result = await desk.answers.rehearse(ask, OPERATOR)
    assert result.metadata.outcome == "answered"
    assert SMALL_BASE[0].id in {citation.id for citation in result.metadata.citations}
    assert digest(database_url) == before
    again = await desk.answers.rehearse(ask, OPERATOR)
    assert again.response == result.response

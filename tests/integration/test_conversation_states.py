"""Whatever a customer and a desk do in whatever order: what is stored stays a conversation."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from appliance.domain.once import once
from appliance.errors import Conflict, KeyReused, NotFound
from appliance.graph.build import SupportGraph
from appliance.llm.scripted import ScriptedModel
from appliance.services.access import OPERATOR, Principal
from appliance.services.answer_query import Accepted, AnswerQuery, Ask
from appliance.services.conversations import Conversations
from appliance.services.once import Idempotency
from appliance.services.query_result import QueryResult
from appliance.services.users import Users
from appliance.storage import Database, Records
from appliance.storage.records import Message
from tests.builders import PASSWORD, FixedReading, FixedSearch, Heard, make_agents, passage

OTHER = Principal("customer", "key:other")
TEXTS = {
    "How do I reset my password?": "question",
    "That did not help": "failure",
    "Great, it works now": "confirmation",
    "Thank you": "thanks",
    "I will call my lawyer": "question",
}


class Conversing(RuleBasedStateMachine):
    """A desk on twins, and what has to be true of it. ``conversations`` maps ids to the numbers of
    customers' messages and answers that have to be there."""

    conversations: Bundle[str] = Bundle("conversations")
    waiting: Bundle[Any] = Bundle("waiting")
    keyed: Bundle[Any] = Bundle("keyed")
    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="states-"))
        shutil.copy(self.template, self.folder / "appliance.db")
        self.database = Database(f"sqlite:///{self.folder / 'appliance.db'}")
        self.desk = Conversations(self.database)
        self.answers = self.process()
        self.expected: dict[str, list[int]] = {}
        self.escalated: set[str] = set()
        self.keys = 0

    def process(self) -> AnswerQuery:
        """Answering as a new process does it."""
        reading = FixedReading("Account", "Neutral", lambda text: TEXTS.get(text, "question"))  # type: ignore[arg-type,return-value]
        agents = make_agents(
            ScriptedModel([PASSWORD.answer]),
            reading=reading,
            search=FixedSearch([passage(PASSWORD)]),
        )
        return AnswerQuery(
            self.database,
            SupportGraph(agents),
            lambda: "twin",
            idempotency=Idempotency(self.database, 24.0),
        )

    def run(self, doing: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(doing, 30))

    def accept(self, text: str, conversation: str | None, key: int) -> Accepted:
        claim = once("operator", str(key), text.encode(), str(conversation).encode())
        return self.run(self.answers.accept(Ask("ada", text, conversation), OPERATOR, claim))

    def finish(self, accepted: Accepted) -> QueryResult:
        async def whole() -> QueryResult:
            return await self.answers.start(accepted, Heard(), asyncio.Event())

        return self.run(whole())

    def stored(self, conversation: str) -> list[Message]:
        return list(self.run(self.database.read(lambda r: r.messages.list(conversation))))

    def note(self, result: QueryResult) -> None:
        self.expected[result.conversation_id][1] += 1
        if result.metadata.escalated:
            self.escalated.add(result.conversation_id)

    # --- what may happen --------------------------------------------------------------------------

    @initialize(target=conversations)
    def begin(self) -> str:
        accepted = self.accept(PASSWORD.question, None, -1)
        self.expected[accepted.conversation.id] = [1, 0]
        self.note(self.finish(accepted))
        return accepted.conversation.id

    @rule(target=keyed, conversation=conversations, text=st.sampled_from(sorted(TEXTS)))
    def ask(self, conversation: str, text: str) -> Any:
        self.keys += 1
        accepted = self.accept(text, conversation, self.keys)
        self.expected[conversation][0] += 1
        result = self.finish(accepted)
        self.note(result)
        return self.keys, text, conversation, result

    @rule(target=waiting, conversation=conversations, text=st.sampled_from(sorted(TEXTS)))
    def die_over_a_message(self, conversation: str, text: str) -> Any:
        """The process ends between acceptance and answer; the next start marks what it left."""
        self.keys += 1
        self.accept(text, conversation, self.keys)
        self.expected[conversation][0] += 1
        self.answers = self.process()
        now = datetime.now(UTC)
        self.run(self.database.write(lambda r: r.messages.fail_received(now, now)))
        return self.keys, text, conversation

    @rule(target=keyed, left=consumes(waiting))
    def retry_after_a_crash(self, left: Any) -> Any:
        key, text, conversation = left
        accepted = self.accept(text, conversation, key)
        assert accepted.reply is None
        result = self.finish(accepted)
        self.note(result)
        return key, text, conversation, result

    @rule(told=keyed)
    def retry(self, told: Any) -> None:
        key, text, conversation, result = told
        assert self.finish(self.accept(text, conversation, key)) == result

    @rule(told=keyed)
    def reuse_a_key(self, told: Any) -> None:
        key, text, conversation, _ = told
        with pytest.raises(KeyReused):
            self.accept(f"{text}!", conversation, key)

    @rule(conversation=conversations, words=st.sampled_from([None, "please call me"]))
    def want_a_person(self, conversation: str, words: str | None) -> None:
        again = words is None and conversation in self.escalated
        self.run(self.desk.escalate(OPERATOR, conversation, words))
        self.expected[conversation][0] += words is not None
        self.expected[conversation][1] += not again
        self.escalated.add(conversation)

    @rule(told=keyed, rating=st.sampled_from(["up", "down"]))
    def rate(self, told: Any, rating: Any) -> None:
        *_, result = told
        given = self.run(self.desk.rate(OPERATOR, result.message_id, rating, None))
        assert given.rating == rating
        asked = next(m for m in self.stored(result.conversation_id) if m.role == "customer")
        with pytest.raises(Conflict):
            self.run(self.desk.rate(OPERATOR, asked.id, rating, None))

    @rule(conversation=conversations)
    def look_into_somebody_elses(self, conversation: str) -> None:
        with pytest.raises(NotFound):
            self.run(self.desk.messages(OTHER, conversation))
        with pytest.raises(NotFound):
            self.run(self.desk.escalate(OTHER, conversation, None))

    # --- what has to hold -------------------------------------------------------------------------

    @invariant()
    def nothing_is_lost_or_told_twice(self) -> None:
        for conversation, counts in self.expected.items():
            stored = self.stored(conversation)
            roles = [message.role for message in stored]
            assert [roles.count("customer"), roles.count("assistant")] == counts
            assert [message.seq for message in stored] == [*range(1, len(stored) + 1)]
            replies = [message.reply_to for message in stored if message.reply_to]
            assert len(replies) == len(set(replies))
            for message in stored:
                if message.role == "customer" and message.state == "answered":
                    continue
                assert message.state in ("sent", "failed")
            shown = self.run(self.desk.get(OPERATOR, conversation))
            # Escalated stays escalated until a person says otherwise.
            if conversation in self.escalated:
                assert shown.status == "escalated"
                assert shown.case_reference
            assert shown.status in ("open", "resolved", "escalated")

    def teardown(self) -> None:
        self.run(Users(self.database).forget(OPERATOR, "ada"))

        def left(records: Records) -> list[int]:
            connection = records.events._connection
            return [
                connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()
                for table in ("messages", "conversations", "idempotency_keys", "feedback")
            ]

        assert self.run(self.database.read(left)) == [0, 0, 0, 0]
        self.run(self.database.aclose())
        self.loop.close()
        shutil.rmtree(self.folder)


@pytest.mark.parametrize(
    ("examples", "steps"),
    [
        pytest.param(10, 15, id="small"),
        pytest.param(200, 50, id="full", marks=[pytest.mark.full, pytest.mark.timeout(1_800)]),
    ],
)
def test_conversations_keep_their_states(sqlite_url: str, examples: int, steps: int) -> None:
    Conversing.template = Path(sqlite_url.removeprefix("sqlite:///"))
    case = Conversing.TestCase
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    case("runTest").runTest()

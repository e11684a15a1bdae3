"""What the desk tells other systems: which events, when, with what in them, and what never."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from appliance.domain.events import DATA, EVENTS, VERSION
from appliance.errors import NotFound
from appliance.knowledge.embedding import EncodingBridge, HashedEmbedder
from appliance.llm.interface import ModelHealth
from appliance.operations.monitor import Monitor
from appliance.services.access import OPERATOR
from appliance.services.conversations import case_reference
from appliance.services.knowledge import save_articles
from appliance.services.served_models import ServedModels
from appliance.services.users import Users
from appliance.storage import Database
from tests.builders import CRASH, PASSWORD, SMALL_BASE
from tests.integration.test_answer_query import CONFIRMATION, SHOP, Desk

pytestmark = pytest.mark.anyio

WORDS = "My zebra password is a riddle"


class Listener:
    """A webhook that subscribes to everything."""

    def __init__(self, database: Database, webhook_id: str) -> None:
        self._database = database
        self._webhook_id = webhook_id

    async def bodies(self) -> list[dict[str, Any]]:
        """What it will get, oldest first."""
        found = await self._database.read(
            lambda records: records.deliveries.list(100, webhook_id=self._webhook_id)
        )
        return [json.loads(each.body) for each in reversed(found)]

    async def heard(self, event_type: str) -> list[dict[str, Any]]:
        """The data of that type's events."""
        return [each["data"] for each in await self.bodies() if each["type"] == event_type]

    async def types(self) -> list[str]:
        return [each["type"] for each in await self.bodies()]


@pytest.fixture
async def listener(database: Database) -> Listener:
    webhook = await database.write(
        lambda records: records.webhooks.add("https://desk.lan/hook", EVENTS, "sealed")
    )
    return Listener(database, webhook.id)


@pytest.fixture
async def desk(database: Database, tmp_path: Path, listener: Listener) -> AsyncIterator[Desk]:
    bridge = EncodingBridge(HashedEmbedder())
    await save_articles(database, SMALL_BASE, replace=True)
    desk = Desk(database, bridge, tmp_path / "index")
    yield desk
    await desk.answers.drain()
    bridge.close()


def assert_published(document: dict[str, Any]) -> None:
    """A body is what the schemas say, neither less nor more."""
    assert set(document) == {"id", "type", "version", "timestamp", "data"}
    assert document["version"] == VERSION
    found = msgspec.convert(document["data"], DATA[document["type"]])
    assert msgspec.to_builtins(found) == document["data"]


async def test_a_query_and_its_answer_are_told(desk: Desk, listener: Listener) -> None:
    result = await desk.ask(WORDS)
    bodies = await listener.bodies()
    assert [each["type"] for each in bodies] == [
        "kb.updated",
        "query.created",
        "response.generated",
    ]
    for each in bodies:
        assert_published(each)
    asked, replied = await desk.messages(result.conversation_id)
    who = {"conversation_id": result.conversation_id, "user_id": "ada"}
    assert bodies[1]["data"] == {**who, "message_id": asked.id}
    assert bodies[2]["data"] == {
        **who,
        "message_id": replied.id,
        "reply_to": asked.id,
        "category": result.category,
        "sentiment": result.sentiment,
        "priority": result.priority,
        "outcome": result.metadata.outcome,
        "mode": result.metadata.mode,
        "escalated": False,
    }


async def test_no_word_of_a_customer_leaves(desk: Desk, listener: Listener) -> None:
    result = await desk.ask(WORDS)
    await desk.ask("My zebra is furious, this is unacceptable")
    await desk.conversations.rate(SHOP, result.message_id, "down", "Zebra!")
    await desk.conversations.escalate(SHOP, result.conversation_id, "The zebra wants a person")
    bodies = await listener.bodies()
    assert {"feedback.received", "conversation.escalated"} <= {each["type"] for each in bodies}
    assert "zebra" not in json.dumps(bodies).lower()


async def test_a_handoff_is_told_once_with_its_reason_and_case(
    desk: Desk, listener: Listener
) -> None:
    result = await desk.ask("This is unacceptable", user="bob")
    await desk.ask("Unacceptable!", user="bob", conversation=result.conversation_id)
    (told,) = await listener.heard("conversation.escalated")
    assert told == {
        "conversation_id": result.conversation_id,
        "user_id": "bob",
        "reason": "phrase",
        "case_reference": case_reference(result.conversation_id),
        "category": result.category,
        "sentiment": result.sentiment,
        "priority": result.priority,
    }
    answers = await listener.heard("response.generated")
    assert [each["escalated"] for each in answers] == [True, True]


async def test_asking_for_a_person_is_told(desk: Desk, listener: Listener) -> None:
    result = await desk.ask(PASSWORD.question)
    for _ in range(2):
        await desk.conversations.escalate(SHOP, result.conversation_id, None)
    (told,) = await listener.heard("conversation.escalated")
    assert (told["reason"], told["sentiment"], told["category"]) == ("requested", None, "Account")
    assert_published((await listener.bodies())[-1])


async def test_what_a_customer_confirms_is_resolved_once(desk: Desk, listener: Listener) -> None:
    result = await desk.ask(PASSWORD.question)
    for text in (CONFIRMATION, CONFIRMATION):
        await desk.ask(text, conversation=result.conversation_id)
    told = {
        "conversation_id": result.conversation_id,
        "user_id": "ada",
        "by": "customer",
        "category": "General",
        "case_reference": None,
    }
    assert await listener.heard("conversation.resolved") == [told]
    # A new question opens it again, and it can be resolved again.
    await desk.ask(CRASH.question, conversation=result.conversation_id)
    await desk.ask(CONFIRMATION, conversation=result.conversation_id)
    assert len(await listener.heard("conversation.resolved")) == 2


async def test_feedback_is_told_without_its_words(desk: Desk, listener: Listener) -> None:
    result = await desk.ask(PASSWORD.question)
    await desk.conversations.rate(SHOP, result.message_id, "up", None)
    await desk.conversations.rate(SHOP, result.message_id, "down", "No!")
    told = await listener.heard("feedback.received")
    assert [(each["rating"], each["commented"]) for each in told] == [("up", False), ("down", True)]
    with pytest.raises(NotFound):
        await desk.conversations.rate(SHOP, "nothing", "up", None)
    assert len(await listener.heard("feedback.received")) == 2


async def test_changed_articles_are_told_and_unchanged_ones_not(
    desk: Desk, listener: Listener
) -> None:
    before = await listener.heard("kb.updated")
    await save_articles(desk.database, SMALL_BASE, replace=True)
    assert await listener.heard("kb.updated") == before
    await save_articles(desk.database, SMALL_BASE[:2], replace=True)
    assert [each["version"] for each in await listener.heard("kb.updated")] == [1, 2]


async def test_the_log_ties_an_event_to_its_query(desk: Desk, listener: Listener) -> None:
    with capture_logs() as lines:
        result = await desk.ask(PASSWORD.question)
    queued = {line["type"]: line for line in lines if line["event"] == "event_queued"}
    told = {each["type"]: each for each in await listener.bodies()}
    for name in ("query.created", "response.generated"):
        assert queued[name]["event_id"] == told[name]["id"]
        assert queued[name]["webhooks"] == 1
    assert told["response.generated"]["data"]["message_id"] == result.message_id


# --- models ---------------------------------------------------------------------------------------


def serving(model: str | None, sha256: str | None = "a" * 64) -> ModelHealth:
    return ModelHealth("ok", model, sha256)


async def test_a_switch_is_told_by_whoever_sees_it_first(
    database: Database, listener: Listener
) -> None:
    one, two = ServedModels(database), ServedModels(database)
    for each in (one, two, one):
        await each.seen(serving("small"))
    assert await listener.types() == []
    for each in (one, two, one):
        await each.seen(serving("large", "b" * 64))
    assert await listener.heard("model.switched") == [
        {"model": "large", "sha256": "b" * 64, "previous": "small"}
    ]
    assert_published((await listener.bodies())[0])


async def test_a_switch_while_nobody_looked_is_told(database: Database, listener: Listener) -> None:
    await ServedModels(database).seen(serving("small"))
    later = ServedModels(database)
    await later.seen(serving(None))
    await later.seen(serving("small", None))
    assert await listener.types() == []
    # Other weights by the same name are another model.
    await ServedModels(database).seen(serving("small", "c" * 64))
    assert [each["sha256"] for each in await listener.heard("model.switched")] == ["c" * 64]


async def test_two_machines_with_a_model_each_do_not_quarrel(
    database: Database, listener: Listener
) -> None:
    one, two = ServedModels(database), ServedModels(database)
    for _ in range(5):
        await one.seen(serving("small"))
        await two.seen(serving("large"))
    assert len(await listener.types()) == 1


async def test_the_monitor_tells_of_models_that_serve_only(database: Database) -> None:
    class Model:
        state = "loading"

        async def health(self) -> ModelHealth:
            return ModelHealth(self.state, "small")  # type: ignore[arg-type]

    told: list[ModelHealth] = []

    async def tell(health: ModelHealth) -> None:
        told.append(health)

    model = Model()
    monitor = Monitor(model, database, lambda: True, serves=tell)  # type: ignore[arg-type]
    await monitor.look_and_tell()
    assert told == []
    model.state = "ok"
    await monitor.look_and_tell()
    assert [each.model for each in told] == ["small"]


async def test_an_operators_erasure_takes_events_on_their_way(
    desk: Desk, listener: Listener
) -> None:
    await desk.ask(PASSWORD.question, user="zebra-7")
    await Users(desk.database).forget(OPERATOR, "zebra-7")
    assert "zebra" not in json.dumps(await listener.bodies())
    assert await listener.types() == ["kb.updated"]

"""From a customer's question to a receiver's log: everything real, the worker kept by ``up``."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.appliance_process import FAQS, ApplianceProcess, MakeAppliance, until
from tests.webhook_receivers import Received, Receiver

# The first test of a session waits for the engine's first start.
pytestmark = [pytest.mark.loopback, pytest.mark.timeout(900)]

EVENTS = [
    "query.created",
    "response.generated",
    "conversation.escalated",
    "feedback.received",
    "kb.updated",
]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def desk(make_module_appliance: MakeAppliance) -> ApplianceProcess:
    return make_module_appliance(environment={"APPLIANCE_WEBHOOK_ALLOW": "127.0.0.0/8:*"})


@pytest.fixture(scope="module", autouse=True)
def webhook(desk: ApplianceProcess, receiver: Receiver) -> None:
    """A webhook at the receiver."""
    with desk.client("admin") as client:
        made = client.post("/webhooks/", json={"url": receiver.url, "events": EVENTS})
    assert made.status_code == 201, made.text
    receiver.secret = made.json()["secret"]


def arrived(receiver: Receiver, event_type: str, **data: Any) -> Received | None:
    """The first delivery of that type with these values in its data."""
    for each in list(receiver.received):
        document = json.loads(each.body)
        if document["type"] == event_type and data.items() <= document["data"].items():
            return each
    return None


def wait_for(receiver: Receiver, event_type: str, **data: Any) -> Received:
    found: Received = until(lambda: arrived(receiver, event_type, **data), event_type)
    return found


def test_a_query_is_followed_to_its_receiver_by_its_id(
    desk: ApplianceProcess, receiver: Receiver
) -> None:
    answer = desk.ask("How do I reset my password?", user="followed")
    conversation = answer["conversation_id"]
    asked = wait_for(receiver, "query.created", conversation_id=conversation)
    replied = wait_for(receiver, "response.generated", conversation_id=conversation)
    assert receiver.all_valid
    query_id = json.loads(asked.body)["data"]["message_id"]
    assert json.loads(replied.body)["data"]["reply_to"] == query_id

    def lines() -> list[dict[str, Any]]:
        text = desk.log.read_text(errors="replace").splitlines()
        found = [json.loads(line) for line in text if line.startswith("{")]
        return [line for line in found if line.get("event_id") == replied.event_id]

    until(lambda: len(lines()) == 2, "both lines")
    queued, delivered = lines()
    assert (queued["event"], queued["process"], queued["query"]) == (
        "event_queued",
        "api",
        query_id,
    )
    assert (delivered["event"], delivered["process"]) == ("webhook_delivered", "worker")
    assert delivered["status"] == 200


def test_every_event_of_a_conversation_arrives(desk: ApplianceProcess, receiver: Receiver) -> None:
    answer = desk.ask("I want a refund immediately", user="evented")
    told = wait_for(receiver, "conversation.escalated", conversation_id=answer["conversation_id"])
    assert json.loads(told.body)["data"]["case_reference"].startswith("CASE-")
    message = desk.messages(answer["conversation_id"])[-1]
    with desk.client("customer") as client:
        body = {"message_id": message["id"], "rating": "up"}
        assert client.post("/feedback", json=body).status_code in (200, 201)
    wait_for(receiver, "feedback.received", message_id=message["id"])
    # By a command in a process of its own.
    article = {"id": "new", "question": "Is it new?", "answer": "It is new.", "category": "General"}
    file = desk.folder / "new.json"
    file.write_text(json.dumps({"faqs": [article]}))
    desk.cli_json("kb", "import", str(file))
    wait_for(receiver, "kb.updated")
    desk.cli_json("kb", "import", str(FAQS), "--replace")
    assert receiver.all_valid


def test_a_worker_that_is_killed_is_started_again_and_loses_nothing(
    desk: ApplianceProcess, receiver: Receiver
) -> None:
    killed = desk.worker
    desk.kill(killed, signal.SIGKILL)
    answer = desk.ask("What is your refund policy?", user="killed")
    wait_for(receiver, "response.generated", conversation_id=answer["conversation_id"])
    assert desk.worker != killed


def test_the_desk_answers_while_its_worker_is_away(
    desk: ApplianceProcess, receiver: Receiver
) -> None:
    desk.kill(desk.worker, signal.SIGSTOP)
    try:
        answer = desk.ask("How does offline mode work?", user="away")
        assert answer["metadata"]["outcome"] == "answered"
        assert (
            arrived(receiver, "response.generated", conversation_id=answer["conversation_id"])
            is None
        )
    finally:
        desk.kill(desk.worker, signal.SIGCONT)
    wait_for(receiver, "response.generated", conversation_id=answer["conversation_id"])


def test_everything_ends_with_up(desk: ApplianceProcess) -> None:
    assert desk.worker
    desk.stop()

"""Secrets that customers type are gone before anything is stored, logged, shown or answered."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from appliance.answering import wording
from appliance.domain.redaction import SECRETS, redact
from appliance.errors import ModelUnavailable
from appliance.graph.build import SupportGraph
from appliance.llm.scripted import ScriptedModel
from appliance.services.access import OPERATOR, Principal
from appliance.services.answer_query import AnswerQuery, Ask
from appliance.services.conversations import Conversations
from appliance.services.query_result import QueryResult
from appliance.settings import HOME
from appliance.storage import Database
from tests.builders import PASSWORD, FixedReading, FixedSearch, Heard, make_agents, passage

pytestmark = pytest.mark.anyio

SHOP = Principal("customer", "key:shop")

TYPED: list[tuple[str, str, str]] = [
    # message, secret, kind
    ("My password is Sunflower77, why can I not log in?", "Sunflower77", "password"),
    ("my pasword is hunter2 and it is refused", "hunter2", "password"),
    ("I use Blume!2024 as my password", "Blume!2024", "password"),
    ("pw: Tr0ub4dor&3", "Tr0ub4dor&3", "password"),
    ("The PIN for my account is 4711.", "4711", "password"),
    ("My one-time code is 483 920 but it does not work", "483 920", "password"),
    ("The code you sent me is 559213, what now?", "559213", "password"),
    ("I got code 771204 by text, where do I type it?", "771204", "password"),
    ("Passwort lautet Sonne1234", "Sonne1234", "password"),
    ("Charge 4111 1111 1111 1111 please", "4111 1111 1111 1111", "card"),
    ("card 5555-5555-5555-4444, cvv 987", "5555-5555-5555-4444", "card"),
    ("card 378282246310005, CVC 4321", "4321", "password"),
    ("My API key sk-live-a1b2c3d4e5f6g7h8 is refused", "sk-live-a1b2c3d4e5f6g7h8", "key"),
    ("Authorization: Bearer abc.DEF-123456", "abc.DEF-123456", "key"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln why?", "eyJhbGciOiJIUzI1NiJ9", "key"),
]
NEEDED = [
    "Write to ada@customer.example or call +49 30 1234567.",
    "Refund it to DE89370400440532013000, please.",
    "I forgot my password, the link does not arrive.",
    "What is a PIN?",
    "Error code 483920 when I upload.",
    "My order 20481234 of 24.11.2026 cost 1,299.00 €.",
]


class Desk:
    """The services over one database, with a model that says the customer's words again."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.conversations = Conversations(database)
        self.model = ScriptedModel(lambda messages: f"You wrote: {messages[-1].content}")
        self.answers = self.with_model(self.model)

    def with_model(self, model: Any) -> AnswerQuery:
        agents = make_agents(model, reading=FixedReading(), search=FixedSearch([passage(PASSWORD)]))
        self.answers = AnswerQuery(self.database, SupportGraph(agents), lambda: "scripted")
        return self.answers

    async def ask(
        self, text: str, conversation: str | None = None, heard: Heard | None = None
    ) -> QueryResult:
        accepted = await self.answers.accept(Ask("ada", text, conversation), SHOP)
        return await self.answers.start(accepted, heard or Heard(), asyncio.Event())


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def stands(secret: str, text: bytes) -> bool:
    """Whether a secret is told, as it is or as JSON. Four digits stand in some id by chance, amid
    its other hexadecimal ones."""
    edge = rb"[0-9a-f]" if secret.isdigit() else rb"(?!)"
    forms = {secret.encode(), json.dumps(secret)[1:-1].encode()}
    return any(
        re.search(rb"(?<!%b)%b(?!%b)" % (edge, re.escape(form), edge), text) for form in forms
    )


def traces(folder: Path, secret: str) -> list[str]:
    """Files of the database in which the secret stands, the write-ahead log included."""
    files = [file for file in folder.iterdir() if file.is_file()]
    assert files
    return [file.name for file in files if stands(secret, file.read_bytes())]


@pytest.mark.parametrize(("text", "secret", "kind"), TYPED)
async def test_a_secret_leaves_no_trace(
    sqlite_url: str, tmp_path: Path, text: str, secret: str, kind: str
) -> None:
    database = Database(sqlite_url)
    try:
        desk = Desk(database)
        heard = Heard()
        with capture_logs() as logs:
            first = await desk.ask(text, heard=heard)
            await desk.ask(f"Once more: {text}", first.conversation_id)
            await desk.conversations.escalate(SHOP, first.conversation_id, text)
            await desk.conversations.rate(SHOP, first.message_id, "down", text)
        assert secret not in first.response
        assert first.response == heard.text
        assert first.response.startswith(wording.removed([kind])[:30])
        assert not stands(secret, repr(logs).encode())
        assert all(secret not in m.content for call in desk.model.calls for m in call)
        shown = await desk.conversations.messages(OPERATOR, first.conversation_id)
        page = await desk.conversations.page(OPERATOR, limit=5)
        assert not stands(secret, repr([shown, page]).encode())
        assert shown[0].content == redact(text, SECRETS).text
        assert f"[{kind}]" in shown[0].content
        # Read before and after the write-ahead log is folded in.
        assert traces(tmp_path, secret) == []
    finally:
        await database.aclose()
    assert traces(tmp_path, secret) == []


@pytest.mark.parametrize("text", NEEDED)
async def test_what_a_desk_needs_to_answer_is_kept(desk: Desk, text: str) -> None:
    result = await desk.ask(text)
    shown = await desk.conversations.messages(OPERATOR, result.conversation_id)
    assert shown[0].content == text
    assert not result.response.startswith("I have removed")


@pytest.mark.parametrize("fails", [ModelUnavailable("gone"), None])
async def test_the_notice_comes_first_whatever_answers(desk: Desk, fails: Exception | None) -> None:
    def broken(messages: Any) -> str:
        if fails is not None:
            raise fails
        return PASSWORD.answer

    desk.with_model(ScriptedModel(broken))
    heard = Heard()
    result = await desk.ask("My password is Sunflower77 and 4111111111111111 my card", heard=heard)
    notice = wording.removed(["password", "card"])
    assert notice == (
        "I have removed what looks like a password and a card number from your message; "
        "please never send them to anybody."
    )
    assert result.response.startswith(f"{notice}\n\n")
    assert result.response == heard.text
    assert result.response.count(notice) == 1
    assert heard.names[:2] == ["analysis", "passages"]
    again = await desk.ask("And where is the link?", result.conversation_id)
    assert notice not in again.response


async def test_the_notice_comes_before_an_apology_too(desk: Desk) -> None:
    def broken(messages: Any) -> str:
        raise RuntimeError("a defect")

    desk.with_model(ScriptedModel(broken))
    result = await desk.ask("My password is Sunflower77")
    assert result.response.startswith(wording.removed(["password"]))
    assert wording.FAILED in result.response


async def test_who_asks_for_a_person_with_a_secret_hears_it_too(desk: Desk) -> None:
    first = await desk.ask("How do I sign in?")
    handoff = await desk.conversations.escalate(
        SHOP, first.conversation_id, "my password is Sunflower77"
    )
    assert handoff.response.startswith(wording.removed(["password"]))
    shown = await desk.conversations.messages(OPERATOR, first.conversation_id)
    assert [m.content for m in shown[-2:]] == ["my password is [password]", handoff.response]


def test_a_placeholder_is_no_secret() -> None:
    text = "My [password] and [card] are removed, ada@x.example and +49 30 1234567 stay."
    assert redact(text, SECRETS).text == text
    assert redact(text, SECRETS).counts == {}
    assert redact(text).text.endswith("[email] and [phone] stay.")


def test_ordinary_messages_lose_nothing() -> None:
    rows = [
        json.loads(line)["text"]
        for name in ("examples.jsonl", "golden.jsonl")
        for line in (HOME / "kb" / name).read_text("utf-8").splitlines()
    ]
    assert [text for text in rows if redact(text, SECRETS).counts] == []

"""The HTTP contract of ARCHITECTURE.md, section 5, over the whole application in this process.

The model is the scripted twin and the embedder the hashed one; articles, database and everything
between are the real ones.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.api.app import create_app
from appliance.bootstrap import Appliance
from appliance.domain.passage import Article
from appliance.knowledge.embedding import HashedEmbedder
from appliance.knowledge.importers import read_faqs
from appliance.llm.scripted import ScriptedModel
from appliance.services.access import OPERATOR
from appliance.services.knowledge import save_articles
from appliance.settings import Settings
from appliance.storage import Database, migrate
from tests.appliance_process import FAQS, ROOT, read_events

pytestmark = [
    pytest.mark.anyio,
    # Said once, by test_the_application_is_made_without_a_warning, instead of by every test.
    pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning"),
]

API = "/api/v1"
PASSWORD = "How do I reset my password?"
DRAFT = (
    "A forgotten password is reset through the Forgot password link on the sign-in page, which "
    "sends a reset e-mail from account@northleaf.example within 5 minutes. "
    "The password reset link is valid for 60 minutes and works only once."
)
"""Two sentences of article 21, word for word, so that grounding lets them pass."""

PROBLEM = {"type", "title", "status", "detail", "code", "hint"}
ANSWER = {
    "conversation_id",
    "response",
    "category",
    "sentiment",
    "priority",
    "timestamp",
    "metadata",
}
METADATA = {
    "outcome",
    "mode",
    "flags",
    "processing_time",
    "escalated",
    "escalation_reason",
    "kb_results",
    "citations",
    "model",
    "stages",
    "tokens",
}
# What the product adds to the contract; a new field has to be written here by somebody.
ANSWER_ADDED = {"message_id"}
METADATA_ADDED = {"category_confidence", "sentiment_confidence", "failures", "remote"}

PASSAGE = {"id", "title", "content", "category", "score"}
CONVERSATION = {
    "id",
    "user_id",
    "title",
    "status",
    "category",
    "priority",
    "escalation_reason",
    "case_reference",
    "created_at",
    "updated_at",
}
MESSAGE = {
    "id",
    "role",
    "content",
    "state",
    "created_at",
    "category",
    "sentiment",
    "priority",
    "outcome",
    "mode",
    "escalated",
    "citations",
    "kb_results",
    "rating",
    "remote",
}

Headers = dict[str, str]


# --- a desk in this process -----------------------------------------------------------------------


@dataclass
class Desk:
    """An application that answers, and somebody of each kind to ask it."""

    appliance: Appliance
    client: httpx.AsyncClient
    model: ScriptedModel
    keys: dict[str, Headers]
    own: dict[str, tuple[str, str]] = field(default_factory=dict)

    async def send(
        self, method: str, path: str, headers: Headers | None = None, **content: Any
    ) -> Any:
        """One request with exactly these headers: cookies of earlier answers are forgotten."""
        self.client.cookies.clear()
        return await self.client.request(method, path, headers=headers, **content)

    async def visitor(self) -> Headers:
        """The headers of the chat page, as a new visitor has it."""
        page = await self.send("GET", "/")
        cookie = page.headers["set-cookie"].partition(";")[0]
        return {"Cookie": cookie, "X-Requested-With": "appliance-chat"}

    async def user_of(self, who: Headers) -> str:
        """The user that a session or a key is tied to."""
        session = await self.send("GET", f"{API}/session", who)
        return str(session.json()["user_id"])

    async def ask(
        self,
        who: Headers,
        message: str = PASSWORD,
        *,
        user: str = "customer-1",
        conversation: str | None = None,
    ) -> dict[str, Any]:
        """Ask something that has to be answered."""
        body = {"user_id": user, "message": message}
        if conversation is not None:
            body["conversation_id"] = conversation
        answer = await self.send("POST", f"{API}/query", who, json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def messages(self, conversation: str) -> list[dict[str, Any]]:
        """A conversation as an admin sees it."""
        path = f"{API}/conversations/{conversation}/messages"
        answer = await self.send("GET", path, self.keys["admin"])
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    def change_database(self, statement: str, *parameters: Any) -> None:
        """Change the database behind the appliance's back."""
        file = self.appliance.settings.data_dir / "appliance.db"
        with closing(sqlite3.connect(file, timeout=30)) as connection, connection:
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute(statement, parameters)


@pytest.fixture(scope="session")
def runtime_dir() -> Iterator[Path]:
    """A short folder for the sockets that nobody opens here."""
    folder = Path(tempfile.mkdtemp(prefix="api-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Template:
    """A data folder with 30 articles, trained heads and keys; the tests work on copies."""

    data_dir: Path
    runtime_dir: Path
    keys: dict[str, Headers]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, runtime_dir: Path) -> Template:
    """Made once, because training takes seconds."""
    data_dir = tmp_path_factory.mktemp("desk") / "data"
    data_dir.mkdir()
    settings = Settings(data_dir=data_dir, runtime_dir=runtime_dir)
    migrate.upgrade(settings.resolved_database_url)
    keys: dict[str, Headers] = {}

    async def fill() -> None:
        appliance = Appliance(settings, model=ScriptedModel(), embedder=HashedEmbedder())
        try:
            await save_articles(appliance.database, read_faqs(FAQS), replace=False)
            wanted = {"customer": "customer", "other": "customer", "agent": "agent"}
            for name, role in (wanted | {"admin": "admin"}).items():
                made = await appliance.access.create_key(role)
                keys[name] = {"Authorization": f"Bearer {made.key}"}
            tied = await appliance.access.create_key("customer", user_id="tied")
            keys["tied"] = {"Authorization": f"Bearer {tied.key}"}
            await appliance.prepare()
        finally:
            await appliance.aclose()

    asyncio.run(fill())
    return Template(data_dir, runtime_dir, keys)


@asynccontextmanager
async def served(appliance: Appliance) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, both in this event loop; Litestar's own test client would block
    it while a request runs."""
    app = create_app(appliance)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="http://desk") as client,
    ):
        yield client


@asynccontextmanager
async def opened(
    template: Template,
    folder: Path,
    *,
    model: ScriptedModel | None = None,
    wait: bool = True,
    **settings: Any,
) -> AsyncIterator[Desk]:
    """A desk on a copy of the template."""
    data_dir = folder / "data"
    shutil.copytree(template.data_dir, data_dir, dirs_exist_ok=True)
    model = model or ScriptedModel([DRAFT])
    appliance = Appliance(
        Settings(data_dir=data_dir, runtime_dir=template.runtime_dir, **settings),
        model=model,
        embedder=HashedEmbedder(),
    )
    async with served(appliance) as client:
        desk = Desk(appliance, client, model, template.keys)
        if wait:
            await reach(lambda: appliance.is_ready)
        failed: Exception | None = None
        try:
            yield desk
        except Exception as error:  # else Litestar's task group would wrap it beyond recognition
            failed = error
    if failed is not None:
        raise failed


@pytest.fixture
async def desk(template: Template, tmp_path: Path) -> AsyncIterator[Desk]:
    async with opened(
        template, tmp_path, webhook_allow=["127.0.0.1"], visitor_queries_per_minute=1_000
    ) as running:
        yield running


async def reach(holds: Any) -> None:
    """Wait until ``holds()``."""
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


def assert_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    """A problem document with that status and code, that says something to people."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].partition(";")[0] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert set(body) == PROBLEM
    assert body["status"] == status
    assert body["code"] == code
    assert body["title"]
    assert body["detail"]
    assert "Traceback" not in answer.text
    return body


def is_time(value: Any) -> bool:
    """An instant with its offset from UTC."""
    return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None


# --- a query and its answer -----------------------------------------------------------------------


async def test_answer_has_the_shape_of_the_contract(desk: Desk) -> None:
    answer = await desk.ask(desk.keys["customer"])
    assert set(answer) == ANSWER | ANSWER_ADDED
    assert isinstance(answer["conversation_id"], str)
    assert isinstance(answer["response"], str)
    assert answer["category"] in ("Technical", "Billing", "Account", "General")
    assert answer["sentiment"] in ("Positive", "Neutral", "Negative", "Angry")
    assert answer["priority"] in range(1, 11)
    assert is_time(answer["timestamp"])
    metadata = answer["metadata"]
    assert set(metadata) == METADATA | METADATA_ADDED
    assert metadata["outcome"] == "answered"
    assert metadata["mode"] == "drafted"
    assert metadata["flags"] == []
    assert metadata["processing_time"] > 0
    assert metadata["escalated"] is False
    assert metadata["escalation_reason"] is None
    assert metadata["citations"][0] == {"id": "21", "title": PASSWORD}
    found = [{"id": each["id"], "title": each["title"]} for each in metadata["kb_results"]]
    assert all(cited in found for cited in metadata["citations"])
    assert metadata["model"] == "scripted"
    assert set(metadata["tokens"]) == {"prompt", "cached", "generated"}
    assert metadata["tokens"]["prompt"] > 0
    assert metadata["tokens"]["generated"] == len(DRAFT.split())
    assert metadata["stages"]
    assert all(isinstance(seconds, float) for seconds in metadata["stages"].values())
    assert metadata["failures"] == []


async def test_passages_come_best_first_at_least_three_of_them(desk: Desk) -> None:
    answer = await desk.ask(desk.keys["customer"])
    found = answer["metadata"]["kb_results"]
    assert len(found) >= 3
    assert all(set(passage) == PASSAGE for passage in found)
    assert (found[0]["id"], found[0]["title"]) == ("21", PASSWORD)
    assert "Forgot password link" in found[0]["content"]
    near_tie = 0.021  # the category decides between passages this close
    scores = [passage["score"] for passage in found]
    assert all(later <= earlier + near_tie for earlier, later in pairwise(scores))


@pytest.mark.parametrize(
    ("message", "outcome", "mode"),
    [
        ("I demand a refund now, or my lawyer will write to you", "handoff", "none"),
        ("qwertz uiopu yxcvb nmasd", "abstained", "none"),
        ("Thank you!", "smalltalk", "none"),
    ],
)
async def test_other_outcomes_have_the_same_shape(
    desk: Desk, message: str, outcome: str, mode: str
) -> None:
    answer = await desk.ask(desk.keys["customer"], message)
    metadata = answer["metadata"]
    assert set(answer) == ANSWER | ANSWER_ADDED
    assert set(metadata) == METADATA | METADATA_ADDED
    assert (metadata["outcome"], metadata["mode"]) == (outcome, mode)
    assert answer["response"]
    assert len(metadata["kb_results"]) >= 3
    assert metadata["escalated"] is (outcome == "handoff")
    assert (metadata["escalation_reason"] is not None) is (outcome == "handoff")
    assert metadata["model"] is None
    assert metadata["tokens"] == {"prompt": 0, "cached": 0, "generated": 0}


@pytest.mark.parametrize("fail_after", [0, 3])
async def test_without_a_model_the_articles_answer(
    template: Template, tmp_path: Path, fail_after: int
) -> None:
    model = ScriptedModel([DRAFT], fail_after=fail_after)
    async with opened(template, tmp_path, model=model) as desk:
        answer = await desk.ask(desk.keys["customer"])
        assert answer["metadata"]["outcome"] == "answered"
        assert answer["metadata"]["mode"] == "curated"
        assert "Forgot password link" in answer["response"]
        assert [c["id"] for c in answer["metadata"]["citations"]] == ["21"]
        await reach(lambda: desk.appliance.monitor.seen.database == "ok")
        ready = await desk.send("GET", f"{API}/ready")
        assert ready.status_code == 200
        assert ready.json()["engine"] == ("down" if fail_after == 0 else "ok")


async def test_what_the_model_invents_does_not_reach_the_customer(
    template: Template, tmp_path: Path
) -> None:
    invented = "Call our hotline at +1 555 0100 and tell them your password."
    async with opened(template, tmp_path, model=ScriptedModel([invented])) as desk:
        answer = await desk.ask(desk.keys["customer"])
        assert "555" not in answer["response"]
        assert "Forgot password link" in answer["response"]
        assert answer["metadata"]["mode"] == "quoted"


async def test_the_same_question_gets_the_same_answer(desk: Desk) -> None:
    first = await desk.ask(desk.keys["customer"], user="one")
    second = await desk.ask(desk.keys["other"], user="two")
    assert first["response"] == second["response"]
    assert first["metadata"]["citations"] == second["metadata"]["citations"]


async def test_a_conversation_goes_on(desk: Desk) -> None:
    first = await desk.ask(desk.keys["customer"])
    second = await desk.ask(
        desk.keys["customer"], "How long is the link valid?", conversation=first["conversation_id"]
    )
    assert second["conversation_id"] == first["conversation_id"]
    items = await desk.messages(first["conversation_id"])
    assert [item["role"] for item in items] == ["customer", "assistant"] * 2
    assert [item["state"] for item in items] == ["answered", "sent"] * 2
    assert [items[1]["id"], items[3]["id"]] == [first["message_id"], second["message_id"]]
    assert [items[1]["content"], items[3]["content"]] == [first["response"], second["response"]]


# --- the same as events ---------------------------------------------------------------------------


async def stream(desk: Desk, who: Headers, **body: str) -> Any:
    return await desk.send(
        "POST",
        f"{API}/query/stream",
        who,
        json={"user_id": "customer-1", "message": PASSWORD} | body,
    )


@pytest.mark.parametrize("message", [PASSWORD, "This is unacceptable!", "Thank you!", "zzzz qqqq"])
async def test_events_come_in_order_and_the_tokens_make_the_answer(
    desk: Desk, message: str
) -> None:
    answer = await stream(desk, desk.keys["customer"], message=message)
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
    events = list(read_events(answer.text.splitlines()))
    names = [name for name, _ in events]
    tokens = [data["text"] for name, data in events if name == "token"]
    assert names == ["analysis", "passages", *["token"] * len(tokens), "answer"]
    assert tokens
    analysis, passages, result = events[0][1], events[1][1], events[-1][1]
    assert "".join(tokens) == result["response"]
    assert set(result) == ANSWER | ANSWER_ADDED
    assert set(result["metadata"]) == METADATA | METADATA_ADDED
    assert passages == {"kb_results": result["metadata"]["kb_results"]}
    assert analysis["conversation_id"] == result["conversation_id"]
    for known in ("category", "sentiment", "priority"):
        assert analysis[known] == result[known]
    stored = await desk.messages(result["conversation_id"])
    assert [item["content"] for item in stored] == [message, result["response"]]
    assert analysis["message_id"] == stored[0]["id"]
    assert result["message_id"] == stored[1]["id"]


async def test_a_stream_and_a_plain_answer_say_the_same(desk: Desk) -> None:
    plain = await desk.ask(desk.keys["customer"])
    events = list(read_events((await stream(desk, desk.keys["other"])).text.splitlines()))
    changing = ("processing_time", "stages", "tokens")
    for name in METADATA - set(changing):
        assert events[-1][1]["metadata"][name] == plain["metadata"][name], name
    assert events[-1][1]["response"] == plain["response"]


async def test_a_slow_stream_is_kept_alive_by_comments(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.api.queries.PING_SECONDS", 0.01)
    async with opened(template, tmp_path, model=ScriptedModel([DRAFT], delay=0.01)) as desk:
        answer = await stream(desk, desk.keys["customer"])
        lines = answer.text.splitlines()
        assert ": ping" in lines
        # A line of data, even an empty one, would make an event of it, which no client expects.
        assert {line for line in lines if line.startswith("data:") and "{" not in line} == set()
        names = [name for name, _ in read_events(answer.text.splitlines())]
        assert names[0] == "analysis"
        assert names[-1] == "answer"


async def test_a_stream_that_cannot_be_finished_ends_with_an_error_event(
    template: Template, tmp_path: Path
) -> None:
    async with opened(template, tmp_path, model=ScriptedModel([DRAFT], delay=0.02)) as desk:
        first = await desk.ask(desk.keys["customer"])
        conversation = first["conversation_id"]
        streaming = asyncio.create_task(
            stream(desk, desk.keys["customer"], conversation_id=conversation)
        )
        await reach(lambda: len(desk.model.calls) == 2)
        desk.change_database("DELETE FROM conversations WHERE id = ?", conversation)
        events = list(read_events((await streaming).text.splitlines()))
        assert events[-1][0] == "error"
        assert set(events[-1][1]) == PROBLEM
        assert events[-1][1]["code"] == "not_found"


async def test_a_refused_stream_is_a_problem_not_an_event(desk: Desk) -> None:
    assert_problem(await stream(desk, {}), 401, "unauthenticated")
    assert_problem(await stream(desk, desk.keys["customer"], message=" "), 400, "invalid_input")
    unknown = await stream(desk, desk.keys["customer"], conversation_id="none")
    assert_problem(unknown, 404, "not_found")


# --- what is not let in ---------------------------------------------------------------------------

GOOD = {"user_id": "customer-1", "message": PASSWORD}
BAD_BODIES: dict[str, Any] = {
    "no message": {"user_id": "u"},
    "no user": {"message": "x"},
    "empty message": GOOD | {"message": ""},
    "blank message": GOOD | {"message": " \n\t "},
    "only NUL": GOOD | {"message": "\x00\x00"},
    "only invisible characters": GOOD | {"message": "\u200b\u2060\ufeff"},
    "8,001 characters": GOOD | {"message": "x" * 8_001},
    "8,001 characters in 4 bytes each": GOOD | {"message": "\U0001f600" * 8_001},
    "message is a number": GOOD | {"message": 1},
    "message is null": GOOD | {"message": None},
    "message is a list": GOOD | {"message": ["x"]},
    "user is a number": GOOD | {"user_id": 1},
    "empty user": GOOD | {"user_id": ""},
    "user of NUL": GOOD | {"user_id": "\x00"},
    "user of 129 characters": GOOD | {"user_id": "u" * 129},
    "user of 100,000 characters": GOOD | {"user_id": "u" * 100_000},
    "empty conversation": GOOD | {"conversation_id": ""},
    "conversation is a number": GOOD | {"conversation_id": 1},
    "conversation of 129 characters": GOOD | {"conversation_id": "c" * 129},
    "unknown field": GOOD | {"mesage": "x"},
    "a list": [GOOD],
    "a text": "x",
    "null": None,
    "no body": b"",
    "half a document": b'{"user_id": "u", "mess',
    "two documents": b'{"user_id": "u", "message": "x"}{}',
    "not JSON": b"user_id=u&message=x",
    "half a surrogate pair": b'{"user_id": "u", "message": "\\ud800"}',
    "a byte order mark of UTF-16": b"\xff\xfe{\x00}\x00",
    "deeply nested": b'{"user_id": ' + b"[" * 50_000,
}


@pytest.mark.parametrize("path", ["/query", "/query/stream"])
async def test_bad_queries_are_refused_and_store_nothing(desk: Desk, path: str) -> None:
    refused = {}
    for name, body in BAD_BODIES.items():
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await desk.send(
            "POST",
            API + path,
            desk.keys["customer"] | {"Content-Type": "application/json"},
            content=content,
        )
        refused[name] = answer
    assert {name: a.status_code for name, a in refused.items()} == dict.fromkeys(BAD_BODIES, 400)
    for answer in refused.values():
        assert_problem(answer, 400, "invalid_input")
    stats = await desk.send("GET", f"{API}/stats", desk.keys["admin"])
    assert stats.json()["queries"] == 0
    users = await desk.send("GET", f"{API}/users", desk.keys["admin"])
    assert [user["id"] for user in users.json()["items"]] == ["tied"]  # made with its key


@pytest.mark.parametrize(
    "content",
    [b'{"user_id": "u", "message": "caf\xe9"}', b'{"user_id": "\xff", "message": "x"}'],
    ids=["message", "user"],
)
async def test_text_that_is_not_utf8_is_refused(desk: Desk, content: bytes) -> None:
    answer = await desk.send(
        "POST",
        f"{API}/query",
        desk.keys["customer"] | {"Content-Type": "application/json"},
        content=content,
    )
    assert_problem(answer, 400, "invalid_input")


@pytest.mark.parametrize(
    "message",
    ["x" * 8_000, "\U0001f600" * 8_000, "reset\x00 my\u200b password", "<script>alert(1)</script>"],
    ids=["8,000 characters", "8,000 characters in 4 bytes each", "NUL inside", "markup"],
)
async def test_odd_but_valid_messages_are_answered(desk: Desk, message: str) -> None:
    answer = await desk.ask(desk.keys["customer"], message)
    stored = await desk.messages(answer["conversation_id"])
    assert stored[0]["content"] == message.replace("\x00", "").replace("\u200b", "")


async def test_bodies_that_are_too_large_are_not_read(template: Template, tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 1_024

    async with opened(template, tmp_path, max_body_bytes=16_384) as desk:
        headers = desk.keys["customer"] | {"Content-Type": "application/json"}
        declared = await desk.send("POST", f"{API}/query", headers, content=b" " * 16_385)
        assert_problem(declared, 413, "too_large")
        chunked = await desk.send("POST", f"{API}/query", headers, content=endless())
        assert_problem(chunked, 413, "too_large")
        allowed = json.dumps(GOOD).encode().ljust(16_384)
        assert (
            await desk.send("POST", f"{API}/query", headers, content=allowed)
        ).status_code == 200


BAD_REQUESTS = [
    ("GET", "/conversations?limit=0", None),
    ("GET", "/conversations?limit=101", None),
    ("GET", "/conversations?limit=9" + "9" * 40, None),
    ("GET", "/conversations?limit=ten", None),
    ("GET", "/conversations?status=lost", None),
    ("GET", "/users?limit=0", None),
    ("GET", "/users?limit=-1", None),
    ("GET", "/kb/search", None),
    ("GET", "/kb/search?q=", None),
    ("GET", "/kb/search?q=%20", None),
    ("GET", "/kb/search?q=%00", None),
    ("GET", "/kb/search?q=" + "x" * 8_001, None),
    ("GET", "/kb/search?q=x&limit=0", None),
    ("GET", "/kb/search?q=x&limit=51", None),
    ("GET", "/kb/search?q=x&category=Sales", None),
    ("POST", "/feedback", {}),
    ("POST", "/feedback", {"message_id": "m"}),
    ("POST", "/feedback", {"message_id": "m", "rating": "sideways"}),
    ("POST", "/feedback", {"message_id": "", "rating": "up"}),
    ("POST", "/feedback", {"message_id": 1, "rating": "up"}),
    ("POST", "/feedback", {"message_id": "m" * 129, "rating": "up"}),
    ("POST", "/feedback", {"message_id": "m", "rating": "up", "comment": "x" * 2_001}),
    ("POST", "/feedback", {"message_id": "m", "rating": "up", "stars": 5}),
    ("POST", "/conversations/c/escalate", {"reason": "x" * 2_001}),
    ("POST", "/conversations/c/escalate", {"reason": 1}),
    ("POST", "/conversations/c/escalate", {"why": "x"}),
    ("PUT", "/users/" + "u" * 129, {}),
    ("PUT", "/users/u", {"vip": "yes"}),
    ("PUT", "/users/u", {"name": "x" * 201}),
    ("PUT", "/users/u", {"email": "x" * 321}),
    ("PUT", "/users/u", {"role": "admin"}),
]


async def test_bad_requests_to_other_routes_are_refused(desk: Desk) -> None:
    found = {}
    for method, path, body in BAD_REQUESTS:
        content = {} if body is None else {"json": body}
        answer = await desk.send(method, API + path, desk.keys["admin"], **content)
        found[method, path[:60], str(body)[:60]] = answer
    assert {name: a.status_code for name, a in found.items()} == dict.fromkeys(found, 400)
    for answer in found.values():
        assert_problem(answer, 400, "invalid_input")


@pytest.mark.parametrize("path", ["/conversations?user_id=", "/users?after="])
async def test_ids_in_the_query_string_have_their_limit(desk: Desk, path: str) -> None:
    long = await desk.send("GET", API + path + "u" * 129, desk.keys["admin"])
    assert_problem(long, 400, "invalid_input")
    assert_problem(await desk.send("GET", API + path, desk.keys["admin"]), 400, "invalid_input")


@pytest.mark.parametrize(
    ("name", "body"),
    [("a%00b", {}), ("%20", {}), ("%E2%80%8B", {}), ("u", {"name": "x\x00y"})],
    ids=["NUL in the id", "blank id", "invisible id", "NUL in the name"],
)
async def test_users_are_stored_as_queries_name_them(
    desk: Desk, name: str, body: dict[str, Any]
) -> None:
    """Queries clean their user_id. An id that no query can ever carry would make VIPs of nobody,
    and PostgreSQL cannot store NUL at all."""
    answer = await desk.send("PUT", f"{API}/users/{name}", desk.keys["admin"], json=body)
    if answer.status_code != 200:
        assert_problem(answer, 400, "invalid_input")
        return
    user = answer.json()
    assert "\x00" not in f"{user['id']}{user['name']}"
    assert user["id"].strip("\u200b ") == user["id"] != ""


@pytest.mark.parametrize(
    "identifier", ["nobody", "x" * 5_000, "%00", "%F0%9F%98%80", "..%2F..", "%"]
)
async def test_unknown_ids_are_not_found(desk: Desk, identifier: str) -> None:
    paths = ["/conversations/{}", "/conversations/{}/messages", "/users/{}", "/kb/articles/{}"]
    for path in paths:
        answer = await desk.send("GET", API + path.format(identifier), desk.keys["admin"])
        assert_problem(answer, 404, "not_found")
    handed = await desk.send(
        "POST", f"{API}/conversations/{identifier}/escalate", desk.keys["admin"], json={}
    )
    assert_problem(handed, 404, "not_found")


async def test_a_query_with_an_unknown_conversation_is_not_found(desk: Desk) -> None:
    for conversation in ("none", "a\x00b", "\U0001f600"):
        answer = await desk.send(
            "POST",
            f"{API}/query",
            desk.keys["customer"],
            json=GOOD | {"conversation_id": conversation},
        )
        assert_problem(answer, 404, "not_found")


async def test_wrong_methods_and_paths(desk: Desk) -> None:
    wrong = await desk.send("GET", f"{API}/query", desk.keys["admin"])
    assert_problem(wrong, 405, "method_not_allowed")
    assert "POST" in wrong.headers["allow"]
    for method, path in [("DELETE", "/health"), ("PUT", "/query"), ("PATCH", "/users/u")]:
        assert_problem(
            await desk.send(method, API + path, desk.keys["admin"]), 405, "method_not_allowed"
        )
    for path in ("/nothing", f"{API}/nothing", f"{API}/", "/assets/nothing.js"):
        assert_problem(await desk.send("GET", path, desk.keys["admin"]), 404, "not_found")
    for path in ("/assets/..%2Fapp.py", "/assets/%2e%2e/app.py", "/assets/../app.py"):
        assert_problem(await desk.send("GET", path), 404, "not_found")


async def test_an_unexpected_error_says_nothing_of_itself(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the customer wrote: my card is 4111")

    monkeypatch.setattr(desk.appliance.users, "page", broken)
    answer = await desk.send("GET", f"{API}/users", desk.keys["admin"])
    assert_problem(answer, 500, "internal")
    assert "4111" not in answer.text


# --- who may do what ------------------------------------------------------------------------------

EVERYBODY = {"nobody": 200, "customer": 200, "visitor": 200, "agent": 200, "admin": 200}
KNOWN = EVERYBODY | {"nobody": 401}
STAFF = KNOWN | {"customer": 403, "visitor": 403}
ADMIN = STAFF | {"agent": 403}
HOOK = {"url": "http://127.0.0.1/hook", "events": ["query.created"]}
ROUTES: list[tuple[str, str, dict[str, int], Any]] = [
    ("POST", "/query", KNOWN, {"user_id": "{user}", "message": PASSWORD}),
    ("POST", "/query/stream", KNOWN, {"user_id": "{user}", "message": PASSWORD}),
    ("POST", "/query/rehearse", ADMIN, {"user_id": "{user}", "message": PASSWORD}),
    ("GET", "/conversations", KNOWN, None),
    ("GET", "/conversations/{conversation_id}", KNOWN, None),
    ("GET", "/conversations/{conversation_id}/messages", KNOWN, None),
    ("POST", "/conversations/{conversation_id}/escalate", KNOWN, {"reason": "please"}),
    (
        "POST",
        "/feedback",
        {who: 201 if status == 200 else status for who, status in KNOWN.items()},
        {"message_id": "{message_id}", "rating": "up"},
    ),
    ("GET", "/users", STAFF, None),
    ("GET", "/users/{user_id}", STAFF, None),
    ("PUT", "/users/{user_id}", STAFF, {"vip": True}),
    ("GET", "/answers/{message_id}/record", STAFF, None),
    ("POST", "/messages/{message_id}/correction", STAFF, {"category": "General"}),
    ("GET", "/kb/search", KNOWN, None),
    ("GET", "/kb/articles/{article_id}", KNOWN, None),
    ("GET", "/kb/quarantine", STAFF | {"agent": 403}, None),
    ("POST", "/kb/quarantine/{quarantine_id}/release", STAFF | {"agent": 403}, None),
    ("POST", "/kb/quarantine/{quarantine_id}/remove", STAFF | {"agent": 403}, None),
    ("GET", "/session", KNOWN, None),
    ("GET", "/stats", STAFF, None),
    ("GET", "/health", EVERYBODY, None),
    ("GET", "/ready", EVERYBODY, None),
    # Nobody without a page's header signs in; a key is no session.
    ("POST", "/login", dict.fromkeys(EVERYBODY, 403) | {"visitor": 401}, {"key": "ssa_nothing"}),
    ("POST", "/logout", STAFF | {"agent": 409, "admin": 409}, None),
    ("GET", "/account", STAFF | {"agent": 409, "admin": 409}, None),
    (
        "POST",
        "/account/password",
        STAFF | {"agent": 409, "admin": 409},
        {"present": "x", "new": "a battery of words"},
    ),
    ("GET", "/keys", STAFF | {"agent": 403}, None),
    ("POST", "/keys", STAFF | {"agent": 403, "admin": 201}, {"role": "agent"}),
    ("DELETE", "/keys/{key_id}", STAFF | {"agent": 403, "admin": 204}, None),
    ("GET", "/accounts", STAFF | {"agent": 403}, None),
    (
        "POST",
        "/accounts",
        STAFF | {"agent": 403, "admin": 201},
        {"username": "eve", "role": "agent", "password": "a battery of words"},
    ),
    (
        "POST",
        "/accounts/{username}/password",
        STAFF | {"agent": 403},
        {"password": "another battery of words"},
    ),
    ("POST", "/accounts/{username}/disable", STAFF | {"agent": 403}, None),
    ("POST", "/accounts/{username}/enable", STAFF | {"agent": 403}, None),
    ("POST", "/accounts/{username}/unlock", STAFF | {"agent": 403}, None),
    ("GET", "/audit", STAFF | {"agent": 403}, None),
    ("DELETE", "/users/{user_id}", STAFF | {"agent": 403, "admin": 204}, None),
    ("GET", "/webhooks", ADMIN, None),
    ("POST", "/webhooks", ADMIN | {"admin": 201}, HOOK),
    ("GET", "/webhooks/{webhook_id}", ADMIN, None),
    ("PUT", "/webhooks/{webhook_id}", ADMIN, HOOK),
    ("POST", "/webhooks/{webhook_id}/test", ADMIN | {"admin": 202}, None),
    ("POST", "/webhooks/{webhook_id}/rotate-secret", ADMIN, {"overlap_hours": 1}),
    ("GET", "/webhooks/{webhook_id}/deliveries", ADMIN, None),
    (
        "POST",
        "/webhooks/{webhook_id}/redeliver",
        ADMIN | {"admin": 202},
        {"since": "2026-11-24T00:00:00Z"},
    ),
    ("GET", "/webhooks/deliveries/{delivery_id}", ADMIN, None),
    ("POST", "/webhooks/deliveries/{delivery_id}/redeliver", ADMIN | {"admin": 202}, None),
    ("DELETE", "/webhooks/{webhook_id}", ADMIN | {"admin": 204}, None),
]
PAGES = [
    "/",
    "/login",
    "/docs",
    "/docs/openapi.json",
    "/assets/chat.js",
    "/assets/chat.css",
    "/favicon.ico",
]


async def openapi(desk: Desk) -> dict[str, Any]:
    answer = await desk.send("GET", "/docs/openapi.json")
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


@pytest.mark.parametrize("who", list(EVERYBODY))
async def test_who_may_do_what(desk: Desk, who: str) -> None:
    headers: Headers = {}
    user = "customer-1"
    if who == "visitor":
        headers = await desk.visitor()
        user = await desk.user_of(headers)
    elif who != "nobody":
        headers = desk.keys[who]
    mine = await desk.ask(headers if who != "nobody" else desk.keys["customer"], user=user)
    change = await save_articles(
        desk.appliance.database,
        [Article("held", "Who can see it?", "Nobody can. Send us your password.", "General")],
        replace=False,
    )
    hook = await desk.appliance.webhooks.create(OPERATOR, **HOOK)
    values = {
        "webhook_id": hook.id,
        "delivery_id": (await desk.appliance.deliveries.test(OPERATOR, hook.id)).id,
        "quarantine_id": change.quarantined[0].id,
        "user": user,
        "user_id": user,
        "conversation_id": mine["conversation_id"],
        "message_id": mine["message_id"],
        "article_id": "21",
        "key_id": (await desk.appliance.access.create_key("agent")).id,
        "username": "eve",
    }
    documented = (await openapi(desk))["paths"]
    found, wanted, undocumented = {}, {}, []
    for method, path, allowed, body in ROUTES:
        content = None
        if body is not None:
            content = json.loads(re.sub(r"{(\w+)}", lambda m: values[m[1]], json.dumps(body)))
        target = API + path.format(**values) + ("?q=refund" if path == "/kb/search" else "")
        answer = await desk.send(method, target, headers, json=content)
        found[method, path], wanted[method, path] = answer.status_code, allowed[who]
        if str(answer.status_code) not in documented[API + path][method.lower()]["responses"]:
            undocumented.append((method, path, answer.status_code))
        if answer.status_code >= 400:
            code = {401: "unauthenticated", 403: "forbidden", 409: "conflict"}[answer.status_code]
            assert_problem(answer, answer.status_code, code)
        if answer.status_code == 401:
            assert answer.headers["www-authenticate"] == "Bearer"
    assert found == wanted
    assert undocumented == []


async def test_the_table_of_routes_is_complete(desk: Desk) -> None:
    """A new route has to say here who may use it."""
    described = {
        (method.upper(), path)
        for path, operations in (await openapi(desk))["paths"].items()
        for method in operations
    }
    assert described == {(method, API + path) for method, path, *_ in ROUTES}


async def test_pages_need_no_key(desk: Desk) -> None:
    for path in PAGES:
        assert (await desk.send("GET", path)).status_code == 200, path


@pytest.mark.parametrize(
    "value",
    ["Bearer", "Bearer ", "Bearer nonsense", "Basic dXNlcjpwYXNz", "Bearer \xe9\xff", "ssa_x"],
)
async def test_bad_keys_are_refused(desk: Desk, value: str) -> None:
    answer = await desk.client.get(
        f"{API}/session", headers=[(b"authorization", value.encode("latin-1"))]
    )
    assert_problem(answer, 401, "unauthenticated")


async def test_a_revoked_key_and_an_expired_key_are_refused(desk: Desk) -> None:
    made = await desk.appliance.access.create_key("agent")
    headers = {"Authorization": f"Bearer {made.key}"}
    assert (await desk.send("GET", f"{API}/session", headers)).status_code == 200
    await desk.appliance.access.revoke_key(made.id)
    assert_problem(await desk.send("GET", f"{API}/session", headers), 401, "unauthenticated")
    late = await desk.appliance.access.create_key(
        "agent", expires_at=datetime.fromisoformat("2020-01-01T00:00:00+00:00")
    )
    headers = {"Authorization": f"Bearer {late.key}"}
    assert_problem(await desk.send("GET", f"{API}/session", headers), 401, "unauthenticated")


async def test_a_key_of_one_user_speaks_for_nobody_else(desk: Desk) -> None:
    answer = await desk.send("POST", f"{API}/query", desk.keys["tied"], json=GOOD)
    assert_problem(answer, 403, "forbidden")
    mine = await desk.ask(desk.keys["tied"], user="tied")
    listed = await desk.send("GET", f"{API}/conversations?user_id=customer-1", desk.keys["tied"])
    assert [item["id"] for item in listed.json()["items"]] == [mine["conversation_id"]]


# --- visitors of the chat page --------------------------------------------------------------------


async def test_the_page_gives_a_session_that_scripts_and_other_sites_cannot_use(
    desk: Desk,
) -> None:
    page = await desk.send("GET", "/")
    name, _, attributes = page.headers["set-cookie"].partition(";")
    assert name.startswith("appliance_visitor_")
    given = {part.strip().lower() for part in attributes.split(";")}
    assert {"httponly", "samesite=strict", "path=/"} <= given
    again = await desk.send("GET", "/", {"Cookie": name})
    assert "set-cookie" not in again.headers
    session = await desk.send("GET", f"{API}/session", {"Cookie": name})
    assert set(session.json()) == {"user_id", "product", "model"}
    assert session.json()["user_id"].startswith("visitor-")
    assert session.json()["product"] == "Northleaf Support"
    assert session.json()["model"] == "scripted"


async def test_forged_sessions_are_refused(desk: Desk) -> None:
    genuine = (await desk.visitor())["Cookie"].partition("=")[2]
    visitor, stamp, signature = genuine.rsplit(".", 2)
    other = (await desk.visitor())["Cookie"].partition("=")[2]
    forged = {
        "empty": "",
        "unsigned": visitor,
        "another visitor, the same signature": f"visitor-{'0' * 24}.{stamp}.{signature}",
        "another time": f"{visitor}.{'A' + stamp[1:]}.{signature}",
        "somebody else's signature": f"{visitor}.{stamp}.{other.rsplit('.', 1)[1]}",
        "changed signature": f"{visitor}.{stamp}.{signature[:-2]}AA",
        "a key": desk.keys["admin"]["Authorization"].partition(" ")[2],
        "long": "x" * 10_000,
    }
    for name, cookie in forged.items():
        headers = {"Cookie": f"appliance_visitor={cookie}"}
        answer = await desk.send("GET", f"{API}/session", headers)
        assert_problem(answer, 401, "unauthenticated"), name
        page = await desk.send("GET", "/", headers)
        assert page.headers["set-cookie"].startswith("appliance_visitor_"), name


async def test_a_session_alone_may_not_post(desk: Desk) -> None:
    """A form of another site can send the cookie of a browser without SameSite, not the header."""
    visitor = await desk.visitor()
    cookie_only = {"Cookie": visitor["Cookie"]}
    user = await desk.user_of(visitor)
    mine = await desk.ask(visitor, user=user)
    posts = [
        ("/query", {"user_id": user, "message": "x"}),
        ("/query/stream", {"user_id": user, "message": "x"}),
        ("/feedback", {"message_id": mine["message_id"], "rating": "up"}),
        (f"/conversations/{mine['conversation_id']}/escalate", {}),
    ]
    for path, body in posts:
        answer = await desk.send("POST", API + path, cookie_only, json=body)
        assert_problem(answer, 403, "forbidden")
    assert (await desk.send("GET", f"{API}/conversations", cookie_only)).status_code == 200


async def test_a_visitor_speaks_only_for_itself(desk: Desk) -> None:
    one, two = await desk.visitor(), await desk.visitor()
    first, second = await desk.user_of(one), await desk.user_of(two)
    assert first != second
    answer = await desk.send(
        "POST", f"{API}/query", one, json={"user_id": second, "message": PASSWORD}
    )
    assert_problem(answer, 403, "forbidden")


async def test_a_visitor_sees_its_own_conversations_only(desk: Desk) -> None:
    one, two = await desk.visitor(), await desk.visitor()
    mine = await desk.ask(one, user=await desk.user_of(one))
    theirs = await desk.ask(two, user=await desk.user_of(two))
    await desk.ask(desk.keys["customer"])
    listed = await desk.send("GET", f"{API}/conversations", one)
    assert [item["id"] for item in listed.json()["items"]] == [mine["conversation_id"]]
    narrowed = await desk.send("GET", f"{API}/conversations?user_id={await desk.user_of(two)}", one)
    assert theirs["conversation_id"] not in narrowed.text


async def test_visitors_are_limited_and_told_when_to_come_back(
    template: Template, tmp_path: Path
) -> None:
    async with opened(template, tmp_path, visitor_queries_per_minute=3) as desk:
        visitor = await desk.visitor()
        user = await desk.user_of(visitor)
        body = {"user_id": user, "message": "Thank you!"}
        statuses = [
            (await desk.send("POST", f"{API}/query", visitor, json=body)).status_code
            for _ in range(3)
        ]
        assert statuses == [200, 200, 200]
        for path in ("/query", "/query/stream"):
            refused = await desk.send("POST", API + path, visitor, json=body)
            assert_problem(refused, 429, "rate_limited")
            assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert (await desk.send("GET", f"{API}/conversations", visitor)).status_code == 200
        stranger = await desk.visitor()
        await desk.ask(stranger, user=await desk.user_of(stranger))
        for _ in range(5):
            await desk.ask(desk.keys["customer"], "Thank you!")


# --- somebody else's ------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["other", "tied", "visitor"])
async def test_somebody_elses_conversation_looks_like_none(desk: Desk, who: str) -> None:
    theirs = await desk.ask(desk.keys["customer"], user="tied-not")
    conversation, message = theirs["conversation_id"], theirs["message_id"]
    headers = await desk.visitor() if who == "visitor" else desk.keys[who]
    user = await desk.user_of(headers) or "tied-not"
    question = (await desk.messages(conversation))[0]["id"]

    async def attempts(conversation: str, answer: str, question: str) -> list[Any]:
        body = {"user_id": user, "message": "x", "conversation_id": conversation}
        base = f"{API}/conversations/{conversation}"
        return [
            await desk.send("GET", base, headers),
            await desk.send("GET", f"{base}/messages", headers),
            await desk.send("POST", f"{base}/escalate", headers, json={}),
            await desk.send("POST", f"{base}/escalate", headers, json={"reason": "x"}),
            *[
                await desk.send(
                    "POST", f"{API}/feedback", headers, json={"message_id": m, "rating": "up"}
                )
                for m in (answer, question)
            ],
            await desk.send("POST", f"{API}/query", headers, json=body),
            await desk.send("POST", f"{API}/query/stream", headers, json=body),
        ]

    refused = await attempts(conversation, message, question)
    for answer in refused:
        assert_problem(answer, 404, "not_found")
    unknown = await attempts("0" * 32, "0" * 32, "0" * 32)
    # Apart from the ids there is no difference between somebody else's and none at all. Which of
    # the two words stands in the detail of a refused thumb would tell that the message exists.
    assert [a.json() for a in refused] == [a.json() for a in unknown]
    assert conversation not in (await desk.send("GET", f"{API}/conversations", headers)).text
    items = await desk.messages(conversation)
    assert [item["role"] for item in items] == ["customer", "assistant"]
    assert [item["rating"] for item in items] == [None, None]


async def test_another_users_conversation_is_not_continued(desk: Desk) -> None:
    """A shop's key speaks for all its customers, but a conversation stays with its own."""
    first = await desk.ask(desk.keys["customer"], user="one")
    for key in ("customer", "admin"):
        answer = await desk.send(
            "POST",
            f"{API}/query",
            desk.keys[key],
            json={
                "user_id": "two",
                "message": "x",
                "conversation_id": first["conversation_id"],
            },
        )
        assert_problem(answer, 404, "not_found")


# --- conversations, thumbs, people ----------------------------------------------------------------


async def test_conversations_and_messages_have_their_shapes(desk: Desk) -> None:
    answer = await desk.ask(desk.keys["customer"], "  How do I\nreset my password? ")
    conversation = answer["conversation_id"]
    listed = await desk.send("GET", f"{API}/conversations", desk.keys["customer"])
    assert set(listed.json()) == {"items"}
    (item,) = listed.json()["items"]
    single = await desk.send("GET", f"{API}/conversations/{conversation}", desk.keys["customer"])
    assert single.json() == item
    assert set(item) == CONVERSATION
    assert item["id"] == conversation
    assert item["user_id"] == "customer-1"
    assert item["title"] == PASSWORD
    assert item["status"] == "open"
    assert (item["category"], item["priority"]) == (answer["category"], answer["priority"])
    assert (item["escalation_reason"], item["case_reference"]) == (None, None)
    assert is_time(item["created_at"])
    assert is_time(item["updated_at"])
    path = f"{API}/conversations/{conversation}/messages"
    messages = await desk.send("GET", path, desk.keys["customer"])
    assert set(messages.json()) == {"items"}
    question, reply = messages.json()["items"]
    assert set(question) == set(reply) == MESSAGE
    assert (question["role"], question["state"]) == ("customer", "answered")
    assert (reply["role"], reply["state"], reply["outcome"]) == ("assistant", "sent", "answered")
    assert reply["citations"] == answer["metadata"]["citations"]
    assert reply["kb_results"] == answer["metadata"]["kb_results"]
    assert all(is_time(message["created_at"]) for message in (question, reply))


async def test_lists_are_narrowed_and_newest_first(desk: Desk) -> None:
    first = await desk.ask(desk.keys["customer"], user="one")
    second = await desk.ask(desk.keys["customer"], "This is unacceptable!", user="two")
    agent = desk.keys["agent"]

    async def ids(parameters: str) -> list[str]:
        answer = await desk.send("GET", f"{API}/conversations{parameters}", agent)
        return [item["id"] for item in answer.json()["items"]]

    assert await ids("") == [second["conversation_id"], first["conversation_id"]]
    assert await ids("?limit=1") == [second["conversation_id"]]
    assert await ids("?user_id=one") == [first["conversation_id"]]
    assert await ids("?status=escalated") == [second["conversation_id"]]
    assert await ids("?status=resolved") == []
    await desk.ask(desk.keys["customer"], user="one", conversation=first["conversation_id"])
    assert await ids("?limit=1") == [first["conversation_id"]]


async def test_a_person_is_asked_for(desk: Desk) -> None:
    customer = desk.keys["customer"]
    asked = await desk.ask(customer)
    conversation = asked["conversation_id"]
    path = f"{API}/conversations/{conversation}/escalate"
    answer = await desk.send("POST", path, customer, json={"reason": "I want a human"})
    assert answer.status_code == 200
    handoff = answer.json()
    assert set(handoff) == {"conversation_id", "case_reference", "response", "message_id"}
    assert handoff["case_reference"] in handoff["response"]
    shown = (await desk.send("GET", f"{API}/conversations/{conversation}", customer)).json()
    assert shown["status"] == "escalated"
    assert shown["escalation_reason"] == "requested"
    assert shown["case_reference"] == handoff["case_reference"]
    items = await desk.messages(conversation)
    assert [(i["role"], i["content"]) for i in items[2:]] == [
        ("customer", "I want a human"),
        ("assistant", handoff["response"]),
    ]
    assert items[3]["escalated"] is True
    assert items[3]["outcome"] == "handoff"
    # Asking again, in each form a client may send, repeats what was said.
    for content in ({"json": {}}, {}, {"json": {"reason": None}}, {"json": {"reason": " "}}):
        again = await desk.send("POST", path, customer, **content)
        assert again.status_code == 200, again.text
        assert again.json() == handoff
    later = await desk.ask(customer, conversation=conversation)
    assert later["metadata"]["outcome"] in ("answered", "handoff")
    shown = (await desk.send("GET", f"{API}/conversations/{conversation}", customer)).json()
    assert shown["status"] == "escalated"


async def test_every_escalated_conversation_gets_a_case_reference(desk: Desk) -> None:
    """Case references are short. That two ids begin alike must not cost a customer the answer."""
    first = await desk.ask(desk.keys["customer"], "This is unacceptable!")
    reference = (
        await desk.send(
            "GET", f"{API}/conversations/{first['conversation_id']}", desk.keys["customer"]
        )
    ).json()["case_reference"]
    second = await desk.ask(desk.keys["customer"])
    twin = first["conversation_id"][:8] + second["conversation_id"][8:]
    desk.change_database(
        "INSERT INTO conversations (id, user_id, owner, title, status, attempts, created_at,"
        " updated_at) SELECT ?, user_id, owner, title, status, attempts, created_at, updated_at"
        " FROM conversations WHERE id = ?",
        twin,
        second["conversation_id"],
    )
    by_button = await desk.send(
        "POST", f"{API}/conversations/{twin}/escalate", desk.keys["customer"], json={}
    )
    assert by_button.status_code == 200, by_button.text
    assert by_button.json()["case_reference"] != reference
    by_words = await desk.ask(desk.keys["customer"], "This is unacceptable!", conversation=twin)
    assert by_words["metadata"]["outcome"] == "handoff"


async def test_thumbs(desk: Desk) -> None:
    customer = desk.keys["customer"]
    answer = await desk.ask(customer)
    body = {"message_id": answer["message_id"], "rating": "down", "comment": "It is too short"}
    given = await desk.send("POST", f"{API}/feedback", customer, json=body)
    assert given.status_code == 201
    assert set(given.json()) == {
        *("id", "message_id", "conversation_id", "rating", "comment", "created_at", "updated_at")
    }
    assert given.json()["conversation_id"] == answer["conversation_id"]
    assert given.json()["comment"] == "It is too short"
    assert (await desk.messages(answer["conversation_id"]))[1]["rating"] == "down"
    body = {"message_id": answer["message_id"], "rating": "up"}
    again = await desk.send("POST", f"{API}/feedback", customer, json=body)
    assert (again.json()["id"], again.json()["rating"]) == (given.json()["id"], "up")
    question = (await desk.messages(answer["conversation_id"]))[0]
    own = await desk.send(
        "POST", f"{API}/feedback", customer, json={"message_id": question["id"], "rating": "up"}
    )
    assert_problem(own, 409, "conflict")
    unknown = await desk.send(
        "POST", f"{API}/feedback", customer, json={"message_id": "none", "rating": "up"}
    )
    assert_problem(unknown, 404, "not_found")


async def test_users_and_the_priority_of_vips(desk: Desk) -> None:
    admin = desk.keys["admin"]
    body = {"name": "Ada", "email": "ada@example.com", "vip": True}
    stored = await desk.send("PUT", f"{API}/users/ada", admin, json=body)
    assert stored.status_code == 200
    user = stored.json()
    assert set(user) == {"id", "name", "email", "vip", "created_at", "updated_at"}
    assert (user["id"], user["name"], user["email"], user["vip"]) == ("ada", *body.values())
    assert (await desk.send("GET", f"{API}/users/ada", admin)).json() == user
    plain = await desk.ask(desk.keys["customer"], user="bob")
    vip = await desk.ask(desk.keys["customer"], user="ada")
    assert vip["priority"] == plain["priority"] + 2
    listed = await desk.send("GET", f"{API}/users?limit=2", admin)
    assert [item["id"] for item in listed.json()["items"]] == ["ada", "bob"]
    rest = await desk.send("GET", f"{API}/users?after=bob", admin)
    assert [item["id"] for item in rest.json()["items"]] == ["tied"]


async def test_knowledge_is_searched_and_read(desk: Desk) -> None:
    customer = desk.keys["customer"]
    found = await desk.send("GET", f"{API}/kb/search?q=reset+password&limit=3", customer)
    assert set(found.json()) == {"items"}
    assert len(found.json()["items"]) == 3
    assert all(set(item) == PASSAGE for item in found.json()["items"])
    assert found.json()["items"][0]["id"] == "21"
    narrowed = await desk.send(
        "GET", f"{API}/kb/search?q=reset+password&limit=30&category=Billing", customer
    )
    assert {item["category"] for item in narrowed.json()["items"]} > {"Billing"}
    article = (await desk.send("GET", f"{API}/kb/articles/21", customer)).json()
    assert set(article) == {"id", "question", "answer", "category"}
    assert article["question"] == PASSWORD


async def test_stats_count_what_was_stored(desk: Desk) -> None:
    answer = await desk.ask(desk.keys["customer"])
    await desk.ask(desk.keys["customer"], "This is unacceptable!")
    await desk.send(
        "POST",
        f"{API}/feedback",
        desk.keys["customer"],
        json={"message_id": answer["message_id"], "rating": "up"},
    )
    stats = (await desk.send("GET", f"{API}/stats", desk.keys["agent"])).json()
    assert set(stats) == {
        *("queries", "by_category", "by_sentiment", "by_outcome", "by_mode"),
        *("escalated", "feedback", "conversations", "model"),
    }
    assert stats["queries"] == 2
    assert stats["by_outcome"] == {"answered": 1, "handoff": 1}
    assert stats["escalated"] == 1
    assert stats["feedback"] == {"up": 1, "down": 0}
    assert stats["conversations"] == {"open": 1, "escalated": 1, "resolved": 0}
    assert stats["model"]["state"] == "ok"


# --- starting, breaking, other processes ----------------------------------------------------------


async def test_health_and_readiness(desk: Desk) -> None:
    await reach(lambda: desk.appliance.monitor.seen.model.state == "ok")
    health = await desk.send("GET", f"{API}/health")
    assert set(health.json()) == {"status", "version"}
    assert health.json()["status"] == "ok"
    ready = await desk.send("GET", f"{API}/ready")
    assert ready.status_code == 200
    assert ready.json() == {
        "status": "ready",
        "engine": "ok",
        "database": "ok",
        "writable": "ok",
        "migrations": "ok",
        "disk": "ok",
        "worker": "unknown",
        "model": "scripted",
        "sha256": "0" * 64,
        "detail": None,
    }


@pytest.fixture
async def starting(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    """A desk whose embedding model never finishes loading."""

    async def for_ever(_: Appliance) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Appliance, "prepare", for_ever)
    async with opened(template, tmp_path, wait=False) as desk:
        yield desk


async def test_while_it_starts_it_says_so(starting: Desk) -> None:
    assert (await starting.send("GET", f"{API}/health")).status_code == 200
    ready = await starting.send("GET", f"{API}/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "starting")
    refused = await starting.send("POST", f"{API}/query", starting.keys["customer"], json=GOOD)
    assert_problem(refused, 503, "not_ready")
    assert int(refused.headers["retry-after"]) >= 1
    streamed = await stream(starting, starting.keys["customer"])
    assert_problem(streamed, 503, "not_ready")
    listed = await starting.send("GET", f"{API}/conversations", starting.keys["customer"])
    assert listed.json() == {"items": []}
    assert (await starting.send("GET", "/")).status_code == 200


async def test_routes_that_answer_503_while_starting_document_it(starting: Desk) -> None:
    paths = (await openapi(starting))["paths"]
    missing = []
    for method, path, _, body in ROUTES:
        target = API + path.replace("{article_id}", "21") + "?q=refund"
        sent = {"user_id": "u", "message": "x"} if body and "user_id" in body else body
        answer = await starting.send(method, target, starting.keys["admin"], json=sent)
        described = paths[API + path][method.lower()]["responses"].get("503", {"content": {}})
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if answer.status_code == 503 and kind not in described["content"]:
            missing.append((method, path, kind, list(described["content"])))
    assert missing == []


async def test_a_database_that_is_gone_is_an_outage_not_a_defect(desk: Desk) -> None:
    desk.change_database("ALTER TABLE conversations RENAME TO elsewhere")
    refused = await desk.send("POST", f"{API}/query", desk.keys["customer"], json=GOOD)
    assert_problem(refused, 503, "storage_unavailable")
    desk.change_database("ALTER TABLE elsewhere RENAME TO conversations")
    await desk.ask(desk.keys["customer"])
    desk.change_database("UPDATE alembic_version SET version_num = 'unknown'")
    await reach(lambda: desk.appliance.monitor.seen.database == "down")
    ready = await desk.send("GET", f"{API}/ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert (await desk.send("GET", f"{API}/health")).status_code == 200


async def test_a_message_without_its_answer_is_shown_as_interrupted(
    template: Template, tmp_path: Path
) -> None:
    async with opened(template, tmp_path) as desk:
        answer = await desk.ask(desk.keys["customer"])
        desk.change_database("DELETE FROM messages WHERE role = 'assistant'")
        desk.change_database("UPDATE messages SET state = 'received'")
    appliance = Appliance(
        desk.appliance.settings, model=ScriptedModel([DRAFT]), embedder=HashedEmbedder()
    )
    async with served(appliance) as client:
        await reach(lambda: appliance.is_ready)
        again = Desk(appliance, client, ScriptedModel(), desk.keys)
        items = await again.messages(answer["conversation_id"])
        assert [item["state"] for item in items] == ["interrupted"]
        resent = await again.ask(desk.keys["customer"], conversation=answer["conversation_id"])
        assert resent["metadata"]["outcome"] == "answered"


async def test_a_command_beside_it_leaves_messages_under_way_alone(
    template: Template, tmp_path: Path
) -> None:
    """``appliance eval`` composes an appliance of its own on the same database."""
    async with opened(template, tmp_path, model=ScriptedModel([DRAFT], delay=1.0)) as desk:
        asking = asyncio.create_task(desk.ask(desk.keys["customer"]))
        await reach(lambda: desk.model.calls)
        command = Appliance(
            desk.appliance.settings, model=ScriptedModel(), embedder=HashedEmbedder()
        )
        try:
            await command.prepare()
        finally:
            await command.aclose()
        states = await desk.appliance.database.read(_states)
        desk.model.delay = 0.0
        answer = await asking
        assert states == ["received"]
        items = await desk.messages(answer["conversation_id"])
        assert [item["state"] for item in items] == ["answered", "sent"]


def _states(records: Any) -> list[str]:
    conversations = records.conversations.list(owner=None, user_id=None, status=None, limit=100)
    return [m.state for c in conversations for m in records.messages.list(c.id)]


async def test_another_process_may_change_the_articles(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "more.json"
    article = {
        "id": "zebra",
        "question": "How do I wash a zebra?",
        "answer": "A zebra is washed with cold water and a soft brush.",
        "category": "General",
    }
    file.write_text(json.dumps({"faqs": [article]}))
    other = Database(desk.appliance.settings.resolved_database_url)
    try:
        await save_articles(other, read_faqs(file), replace=False)
    finally:
        await other.aclose()
    answer = await desk.ask(desk.keys["customer"], "How do I wash a zebra?")
    assert answer["metadata"]["kb_results"][0]["id"] == "zebra"
    assert "soft brush" in answer["response"]


# --- pages, headers, description ------------------------------------------------------------------


class References(HTMLParser):
    """What a page refers to, and what a strict policy would refuse."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []
        self._in = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._in = tag
        if tag != "use":
            names = ("src", "href", "action", "poster", "data")
            self.found += [v for name in names if (v := given.get(name)) and v[0] != "#"]
        self.inline += [name for name in given if name == "style" or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        if self._in in ("script", "style") and data.strip():
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._in = ""


@pytest.mark.parametrize("path", ["/", "/login", "/docs"])
async def test_pages_use_this_server_only(desk: Desk, path: str) -> None:
    page = await desk.send("GET", path)
    assert page.headers["content-type"].startswith("text/html")
    references = References(page.text)
    assert references.inline == []
    assert references.found
    for reference in references.found:
        assert re.match(r"/(?!/)", reference), reference
        answer = await desk.send("GET", reference)
        assert answer.status_code == 200, reference
        if reference.endswith((".css", ".svg")):
            assert re.findall(r"(?:url\(|@import )\s*['\"]?(?:https?:)?//", answer.text) == []


async def test_the_scripts_of_the_chat_page_name_no_other_host(desk: Desk) -> None:
    for file in (ROOT / "appliance" / "api" / "pages").glob("*.js"):
        served = await desk.send("GET", f"/assets/{file.name}")
        assert served.status_code == 200
        assert served.headers["content-type"].partition(";")[0].endswith("javascript")
        hosts = set(re.findall(r"https?://[\w.-]+", served.text))
        assert hosts <= {"http://www.w3.org"}, file.name  # the name space of SVG


async def test_every_problem_is_described(desk: Desk) -> None:
    described = await openapi(desk)
    wrong = {}
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                kinds = list(response.get("content", {}))
                if path.endswith("/ready"):
                    continue  # one document for a probe to read, ready or not
                if int(status) >= 400 and kinds != ["application/problem+json"]:
                    wrong[method.upper(), path, status] = kinds
    assert wrong == {}
    assert described["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}


async def test_the_stream_is_described_as_one(desk: Desk) -> None:
    paths = (await openapi(desk))["paths"]
    success = paths[f"{API}/query/stream"]["post"]["responses"]["200"]
    assert list(success["content"]) == ["text/event-stream"]


async def test_the_application_is_made_without_a_warning(template: Template) -> None:
    settings = Settings(data_dir=template.data_dir, runtime_dir=template.runtime_dir)
    appliance = Appliance(settings, model=ScriptedModel(), embedder=HashedEmbedder())
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        create_app(appliance)
    await appliance.aclose()
    assert [str(warning.message) for warning in given] == []


async def test_every_answer_carries_the_security_headers(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(desk.appliance.users, "get", broken)
    customer, admin = desk.keys["customer"], desk.keys["admin"]
    answers = {
        **{path: await desk.send("GET", path) for path in PAGES},
        "asset 404": await desk.send("GET", "/assets/nothing"),
        "docs 404": await desk.send("GET", "/docs/nothing"),
        "404": await desk.send("GET", "/nothing"),
        "200": await desk.send("GET", f"{API}/health"),
        "query": await desk.send("POST", f"{API}/query", customer, json=GOOD),
        "stream": await stream(desk, customer),
        "400": await desk.send("POST", f"{API}/query", customer, json={}),
        "401": await desk.send("GET", f"{API}/stats"),
        "403": await desk.send("GET", f"{API}/stats", customer),
        "405": await desk.send("DELETE", f"{API}/health"),
        "413": await desk.send("POST", f"{API}/query", customer, content=b" " * 300_000),
        "500": await desk.send("GET", f"{API}/users/u", admin),
        "OPTIONS": await desk.send("OPTIONS", f"{API}/health"),
    }
    for name, answer in answers.items():
        policy = dict(
            part.strip().partition(" ")[::2]
            for part in answer.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'", name
        assert policy["script-src"] == policy["connect-src"] == "'self'", name
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'", name
        docs = str(answer.request.url.path).startswith("/docs")
        assert policy["style-src"] == ("'self' 'unsafe-inline'" if docs else "'self'"), name
        assert not re.search(r"https?:|\*|unsafe-eval", str(policy)), name
        assert answer.headers["x-content-type-options"] == "nosniff", name
        assert answer.headers["referrer-policy"] in ("same-origin", "no-referrer"), name
        assert "access-control-allow-origin" not in answer.headers, name
        assert "server" not in answer.headers, name
        if str(answer.request.url.path).startswith(API):
            assert answer.headers["cache-control"] == "no-store", name

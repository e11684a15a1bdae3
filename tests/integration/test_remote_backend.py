"""The remote backend within a whole appliance, over a server on loopback that behaves like Groq.

The appliance, its database and its pages are the real ones; the model behind the remote one is the
scripted twin and the embedder the hashed one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from appliance.bootstrap import Appliance
from appliance.errors import SettingsError
from appliance.knowledge.embedding import HashedEmbedder
from appliance.llm import remote
from appliance.llm.scripted import ScriptedModel
from appliance.settings import Settings
from tests import groq_server as groq_like
from tests.appliance_process import ApplianceProcess, until
from tests.groq_server import KEY, MODEL, Act, GroqServer
from tests.integration.test_api_contract import (
    DRAFT,
    PASSWORD,
    Desk,
    Template,
    opened,
    reach,
    runtime_dir,
    template,
)

__all__ = ["runtime_dir", "template"]  # fixtures

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.loopback,
    pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning"),
]

FIRST_START = pytest.mark.timeout(900)
"""The first test of a session that needs an engine waits for its very first start."""
CARD = "4111 1111 1111 1111"
EMAIL = "ada@customer.example"
TELLING = (
    f"How do I reset my password? It is my password hunter2 and my card is {CARD}. I am {EMAIL}."
)
PASSED_ON = "The password reset link is valid for 60 minutes and works only once."


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "groq.key"
    file.write_text(KEY)
    file.chmod(0o600)
    return file


Open = Callable[..., AbstractAsyncContextManager[Desk]]


@pytest.fixture
def open_desk(template: Template, tmp_path: Path, groq: GroqServer, key_file: Path) -> Open:
    """Open a desk whose remote backend is the server on loopback."""

    def remote_desk(**changes: Any) -> AbstractAsyncContextManager[Desk]:
        settings = {
            "answer_mode": "drafted",
            "remote_enabled": True,
            "remote_url": groq.url,
            "remote_key_file": key_file,
            "remote_timeout": 3.0,
        }
        return opened(template, tmp_path, **{**settings, **changes})

    return remote_desk


@pytest.fixture
async def desk(open_desk: Open, groq: GroqServer) -> AsyncIterator[Desk]:
    groq.ordinary = Act(DRAFT)
    async with open_desk() as running:
        yield running


async def audit(desk: Desk) -> list[Any]:
    """What the audit log holds of remote calls, oldest first."""
    entries = await desk.appliance.database.read(lambda records: records.audit.list(100))
    return [entry for entry in reversed(entries) if entry.action.startswith("remote.")]


# --- on -------------------------------------------------------------------------------------------


async def test_a_remote_answer_is_labelled_and_grounded_like_any_other(
    desk: Desk, groq: GroqServer
) -> None:
    groq.ordinary = Act(f"{DRAFT} You can also call your bank and ask for a password there.")
    answer = await desk.ask(desk.keys["customer"])
    metadata = answer["metadata"]
    assert metadata["remote"] is True
    assert "remote" in metadata["flags"]
    assert (metadata["model"], metadata["mode"]) == (MODEL, "drafted")
    assert metadata["tokens"]["generated"] > 0
    assert metadata["failures"] == []
    assert PASSED_ON in answer["response"]
    assert "bank" not in answer["response"]
    question, reply = await desk.messages(answer["conversation_id"])
    assert (question["remote"], reply["remote"]) == (False, True)
    assert desk.model.calls == []


async def test_only_redacted_words_leave_and_both_ends_of_the_call_are_on_record(
    desk: Desk, groq: GroqServer
) -> None:
    answer = await desk.ask(desk.keys["customer"], TELLING)
    assert answer["metadata"]["remote"] is True
    assert b"hunter2" not in groq.everything
    assert CARD.encode() not in groq.everything
    assert EMAIL.encode() not in groq.everything
    assert b"[card]" in groq.everything
    assert b"[email]" in groq.everything
    called, ended = await audit(desk)
    assert (called.action, ended.action) == ("remote.call", "remote.result")
    assert {called.actor, ended.actor} == {"appliance"}
    assert {called.target, ended.target} == {f"127.0.0.1:{groq.port}"}
    assert called.details["call"] == ended.details["call"]
    question, _ = await desk.messages(answer["conversation_id"])
    assert {called.details["query"], ended.details["query"]} == {question["id"]}
    # Cards and passwords were gone before the message was stored.
    assert set(called.details["redactions"]) == {"email"}
    assert ended.details["outcome"] == "answered"
    assert ended.details["tokens"]["generated"] > 0
    told = json.dumps([dict(called.details), dict(ended.details)])
    for secret in ("hunter2", "4111", EMAIL, KEY, "How do I"):
        assert secret not in told


async def test_quoted_sentences_are_named_by_the_remote_model(
    open_desk: Open, groq: GroqServer
) -> None:
    groq.ordinary = Act('{"numbers": [1]}')
    async with open_desk(answer_mode="quoted") as desk:
        answer = await desk.ask(desk.keys["customer"])
    assert (answer["metadata"]["mode"], answer["metadata"]["remote"]) == ("quoted", True)
    assert answer["metadata"]["model"] == MODEL


async def test_a_service_that_is_down_is_replaced_and_the_answer_says_so(
    desk: Desk, groq: GroqServer
) -> None:
    groq.ordinary = groq_like.INTERNAL
    answer = await desk.ask(desk.keys["customer"])
    metadata = answer["metadata"]
    assert (metadata["remote"], metadata["model"]) == (False, "scripted")
    assert "remote" not in metadata["flags"]
    assert PASSED_ON in answer["response"]
    _, ended = await audit(desk)
    assert (ended.details["outcome"], ended.details["fallback"]) == ("unavailable", True)
    # The local model may see the customer's own words.
    assert len(desk.model.calls) == 1


@pytest.mark.parametrize(
    "refusal", [groq_like.DECOMMISSIONED, groq_like.INVALID_KEY, groq_like.TOO_LARGE]
)
async def test_a_refusal_shows_in_the_answer_in_ready_and_at_the_doctors(
    desk: Desk, groq: GroqServer, refusal: Act
) -> None:
    groq.script = [refusal]
    with capture_logs() as lines:
        answer = await desk.ask(desk.keys["customer"])
    metadata = answer["metadata"]
    assert metadata["failures"] == ["remote_rejected"]
    assert (metadata["mode"], metadata["remote"]) == ("curated", False)
    assert PASSED_ON in answer["response"]
    assert desk.model.calls == []
    assert "remote_rejected" in [line["event"] for line in lines if line["log_level"] == "error"]

    seen = await desk.appliance.monitor.look()
    assert seen.model.state == "ok"
    ready = (await desk.send("GET", "/api/v1/ready")).json()
    assert ready["status"] == "ready"
    assert str(refusal.status) in ready["detail"]
    assert "remote.key_file" in ready["detail"]
    assert KEY not in ready["detail"]
    finding = await doctors(desk)
    assert finding.state == "warn"
    assert str(refusal.status) in finding.detail
    assert "remote.model" in finding.hint

    # Until a call succeeds.
    await desk.ask(desk.keys["customer"])
    assert (await desk.appliance.monitor.look()).model.detail is None
    assert (await doctors(desk)).state == "ok"


async def doctors(desk: Desk) -> Any:
    from appliance.operations.doctor import examine

    found = await examine(desk.appliance.settings)
    return next(finding for finding in found if finding.what == "remote")


async def test_without_an_audit_log_nothing_is_sent(desk: Desk, groq: GroqServer) -> None:
    desk.change_database(
        "CREATE TRIGGER audit_log_full BEFORE INSERT ON audit_log"
        " BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    answer = await desk.ask(desk.keys["customer"])
    assert answer["metadata"]["remote"] is False
    assert PASSED_ON in answer["response"]
    assert groq.received == []
    assert len(desk.model.calls) == 1


async def test_a_customer_who_leaves_is_on_record(desk: Desk, groq: GroqServer) -> None:
    """The answer is finished from the articles; what was sent stays written down."""
    groq.ordinary = Act(DRAFT, hang=True, after=2)
    answer = await desk.ask(desk.keys["customer"])
    assert answer["metadata"]["mode"] == "curated"
    await reach(lambda: not desk.appliance.model._writing)  # type: ignore[attr-defined]
    _, ended = await audit(desk)
    assert ended.details["outcome"] == "broke_off"


# --- off ------------------------------------------------------------------------------------------


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making a remote backend, in whatever way, is an error."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a remote backend was made")

    for name in ("connect", "RemoteModel", "OpenAIChatModel"):
        monkeypatch.setattr(remote, name, refuse)
    monkeypatch.setattr("appliance.llm.remote_access.read_key", refuse)


async def test_switched_off_nothing_is_made_and_nothing_is_called(
    open_desk: Open, groq: GroqServer, forbidden: None
) -> None:
    """Everything is set but the switch: address, model and a good key."""
    async with open_desk(remote_enabled=False) as desk:
        answer = await desk.ask(desk.keys["customer"])
        assert answer["metadata"]["remote"] is False
        assert answer["metadata"]["model"] == "scripted"
        assert await audit(desk) == []
        finding = await doctors(desk)
    assert (finding.state, finding.detail.partition(":")[0]) == ("ok", "off")
    assert groq.received == []


def test_off_is_the_default() -> None:
    assert Settings.model_fields["remote_enabled"].default is False
    assert Settings.model_fields["remote_key_file"].default is None


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"remote_key_file": None}, "remote.key_file"),
        ({"remote_key_file": Path("/nowhere/key")}, "remote.key_file"),
        ({"remote_url": "http://192.0.2.7/openai"}, "https://"),
    ],
)
async def test_an_appliance_that_may_not_call_does_not_start(
    template: Template, tmp_path: Path, key_file: Path, changes: dict[str, Any], hint: str
) -> None:
    wanted = {"remote_enabled": True, "remote_key_file": key_file, **changes}
    settings = Settings(data_dir=tmp_path, runtime_dir=template.runtime_dir, **wanted)
    with pytest.raises(SettingsError) as caught:
        Appliance(settings, model=ScriptedModel(), embedder=HashedEmbedder())
    assert hint in caught.value.hint


def test_a_process_that_may_not_call_ends_with_a_line_and_a_hint(key_file: Path) -> None:
    key_file.chmod(0o644)
    environment = {
        "APPLIANCE_REMOTE_ENABLED": "true",
        "APPLIANCE_REMOTE_KEY_FILE": str(key_file),
    }
    desk = ApplianceProcess(None, environment=environment)
    try:
        done = desk.cli("api")
        examined = json.loads(desk.cli("doctor", "--json").stdout)
    finally:
        desk.clean()
    assert done.returncode == 1
    assert f"chmod 600 {key_file}" in done.stderr
    assert "Traceback" not in done.stderr
    findings = {finding["what"]: finding for finding in examined["findings"]}
    assert findings["remote"]["state"] == "bad"


# --- a whole appliance ----------------------------------------------------------------------------


@FIRST_START
def test_a_running_appliance_asks_the_remote_model(
    make_appliance: Callable[..., ApplianceProcess], groq: GroqServer, key_file: Path
) -> None:
    """With its settings in the file, and the real engine behind."""
    groq.ordinary = Act(DRAFT)
    config = key_file.with_name("appliance.toml")
    config.write_text(
        f'answer_mode = "drafted"\n[remote]\nenabled = true\nurl = "{groq.url}"\n'
        f'key_file = "{key_file}"\n'
    )
    desk = make_appliance(environment={"APPLIANCE_CONFIG": str(config)})
    answer = desk.ask(TELLING)
    assert answer["metadata"]["remote"] is True
    assert answer["metadata"]["model"] == MODEL
    assert b"hunter2" not in groq.everything
    with closing(sqlite3.connect(desk.data_dir / "appliance.db")) as connection:
        rows = connection.execute(
            "SELECT action FROM audit_log WHERE action LIKE 'remote.%' ORDER BY created_at"
        ).fetchall()
    assert rows == [("remote.call",), ("remote.result",)]
    assert desk.events("remote_enabled")

    groq.ordinary = groq_like.INVALID_KEY
    assert desk.ask(PASSWORD)["metadata"]["failures"] == ["remote_rejected"]
    until(lambda: "401" in (desk.readiness()[1]["detail"] or ""), "the refusal in /ready")
    whole = desk.log.read_text()
    for secret in (KEY, "hunter2", CARD):
        assert secret not in whole

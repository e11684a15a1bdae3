"""The remote backend piece by piece: who may be called, what its headers mean, and how one call
goes, over the scripted twin and a server on loopback that behaves like Groq."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from appliance.errors import (
    ModelRejected,
    ModelUnavailable,
    StorageUnavailable,
)
from appliance.llm.interface import ChatMessage, Chunk, Structured
from appliance.llm.remote import ATTEMPTS, RemoteModel, RemoteRejected, connect
from appliance.llm.scripted import ScriptedModel
from appliance.llm.structured import choose, pick
from appliance.settings import Settings
from tests import groq_server as groq_like
from tests.groq_server import KEY, MODEL, REPLY, Act, GroqServer, rate_limited

pytestmark = [pytest.mark.anyio, pytest.mark.loopback]

LOCAL = "The local model says so."
ASK = [
    ChatMessage("system", "You are a support desk."),
    ChatMessage("user", "My card 4111 1111 1111 1111 and ada@example.com: where is my order?"),
]


@dataclass
class Ledger:
    """An audit log that can be told to fail."""

    entries: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)
    broken: str | None = None

    async def __call__(self, action: str, target: str, details: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        if action == self.broken:
            raise StorageUnavailable("The database is closed.")
        self.entries.append((action, target, details))

    @property
    def actions(self) -> list[str]:
        return [action for action, _, _ in self.entries]

    @property
    def result(self) -> Mapping[str, Any]:
        """How the only call ended."""
        (details,) = [d for action, _, d in self.entries if action == "remote.result"]
        return details


@dataclass
class Desk:
    """A remote model in front of a local one."""

    model: RemoteModel
    local: ScriptedModel
    ledger: Ledger
    key_file: Path


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "groq.key"
    file.write_text(f"{KEY}\n")
    file.chmod(0o600)
    return file


MakeDesk = Callable[..., Desk]


@pytest.fixture
async def make_desk(
    groq: GroqServer, key_file: Path, tmp_path: Path, anyio_backend: str
) -> AsyncIterator[MakeDesk]:
    made: list[Desk] = []

    def make(*, local: ScriptedModel | None = None, **changes: Any) -> Desk:
        settings = Settings(
            data_dir=tmp_path,
            remote_enabled=True,
            remote_key_file=key_file,
            **{"remote_url": groq.url, "remote_timeout": 5.0, "remote_reasoning": "", **changes},
        )
        local = local or ScriptedModel([LOCAL])
        ledger = Ledger()
        made.append(Desk(connect(settings, local, ledger), local, ledger, key_file))
        return made[-1]

    yield make
    for desk in made:
        await desk.model.aclose()


async def streamed(desk: Desk) -> list[Chunk]:
    return [chunk async for chunk in desk.model.stream(ASK, max_tokens=30)]


async def said(desk: Desk, way: str) -> tuple[str, bool, str | None]:
    """Text, whether it is labelled remote, and whose it is."""
    if way == "complete":
        whole = await desk.model.complete(ASK, max_tokens=30)
        return whole.text, whole.remote, whole.model
    chunks = await streamed(desk)
    (remote,) = {chunk.remote for chunk in chunks}
    (name,) = {chunk.model for chunk in chunks}
    return "".join(chunk.text for chunk in chunks), remote, name


WAYS = pytest.mark.parametrize("way", ["stream", "complete"])


# --- an ordinary call -----------------------------------------------------------------------------


@WAYS
async def test_the_remote_model_answers_and_says_so(
    make_desk: MakeDesk, groq: GroqServer, way: str
) -> None:
    desk = make_desk()
    assert await said(desk, way) == (REPLY, True, MODEL)
    assert desk.local.calls == []
    (request,) = groq.received
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body["model"] == MODEL
    assert request.body["max_completion_tokens"] == 30
    assert [message["content"] for message in request.body["messages"]] == [
        "You are a support desk.",
        "My card [card] and [email]: where is my order?",
    ]


@WAYS
async def test_a_call_is_written_down_before_and_after(
    make_desk: MakeDesk, groq: GroqServer, way: str
) -> None:
    desk = make_desk()
    await said(desk, way)
    (called, host, before), (ended, _, after) = desk.ledger.entries
    assert (called, ended, host) == ("remote.call", "remote.result", f"127.0.0.1:{groq.port}")
    sent = sum(len(message["content"]) for message in groq.received[0].body["messages"])
    assert before == {
        "call": before["call"],
        "model": MODEL,
        "prompt_chars": sent,
        "redactions": {"card": 1, "email": 1},
    }
    assert after == {
        "call": before["call"],
        "outcome": "answered",
        "fallback": False,
        "attempts": 1,
        "seconds": after["seconds"],
        "tokens": {"prompt": 14, "cached": 0, "generated": 15},
        "reason": None,
    }


async def test_nothing_leaves_before_it_is_written_down(
    make_desk: MakeDesk, groq: GroqServer
) -> None:
    desk = make_desk()
    written_when_called: list[list[str]] = []
    send = desk.model._remote.complete

    async def watched(*args: Any, **options: Any) -> Any:
        written_when_called.append(list(desk.ledger.actions))
        return await send(*args, **options)

    desk.model._remote.complete = watched  # type: ignore[method-assign]
    await said(desk, "complete")
    assert written_when_called == [["remote.call"]]


@WAYS
async def test_a_call_that_cannot_be_written_down_is_not_made(
    make_desk: MakeDesk, groq: GroqServer, way: str
) -> None:
    desk = make_desk()
    desk.ledger.broken = "remote.call"
    with capture_logs() as lines:
        assert await said(desk, way) == (LOCAL, False, "scripted")
    assert groq.received == []
    assert desk.ledger.entries == []
    assert [line["event"] for line in lines] == ["remote_call_not_made"]


@WAYS
async def test_a_result_that_cannot_be_written_down_is_logged(
    make_desk: MakeDesk, way: str
) -> None:
    desk = make_desk()
    desk.ledger.broken = "remote.result"
    with capture_logs() as lines:
        assert (await said(desk, way))[0] == REPLY
        await desk.model.aclose()
    assert [line["event"] for line in lines] == ["remote_result_not_audited"]


async def test_the_local_model_gets_the_customers_own_words(
    make_desk: MakeDesk, groq: GroqServer
) -> None:
    groq.ordinary = groq_like.DOWN
    desk = make_desk(remote_timeout=0.5)
    await said(desk, "complete")
    assert desk.local.calls == [tuple(ASK)]


async def test_a_model_that_thinks_first_gets_room_to(
    make_desk: MakeDesk, groq: GroqServer
) -> None:
    desk = make_desk(remote_reasoning="low")
    await said(desk, "stream")
    body = groq.received[0].body
    assert (body["reasoning_effort"], body["include_reasoning"]) == ("low", False)
    assert body["max_completion_tokens"] > 500


async def test_the_two_questions_in_a_form_are_asked_as_json(
    make_desk: MakeDesk, groq: GroqServer
) -> None:
    desk = make_desk()
    assert desk.model.capabilities.remote
    groq.script = [Act('{"choice": "Billing"}'), Act('{"numbers": [3, 1]}')]
    chosen = await choose(desk.model, ASK, ["Account", "Billing"])
    picked = await pick(desk.model, ASK, count=4, most=2)
    assert (chosen.choice, chosen.scores) == ("Billing", None)
    assert (picked.numbers, picked.remote, picked.model) == ((3, 1), True, MODEL)
    assert {r.body["response_format"]["type"] for r in groq.received} == {"json_schema"}
    # Where the service does not answer, the local model keeps to the same form.
    groq.ordinary = Act(reset=True)
    assert (await choose(desk.model, ASK, ["Account", "Billing"])).choice == "Account"
    with pytest.raises(ModelRejected):
        await desk.model.complete(ASK, max_tokens=5, structured=Structured(regex="a"))
    assert desk.ledger.actions.count("remote.call") == 3


# --- what passes by itself ------------------------------------------------------------------------


PASSING = {
    "429": rate_limited("0.05"),
    "429 without a time": rate_limited(),
    "498": groq_like.FULL,
    "500": groq_like.INTERNAL,
    "503": groq_like.refused(503, "internal_server_error", None, "Down"),
    "reset": Act(reset=True),
}


@WAYS
@pytest.mark.parametrize("trouble", ["429", "429 without a time", "498", "500", "503", "reset"])
async def test_what_passes_is_tried_again(
    make_desk: MakeDesk, groq: GroqServer, way: str, trouble: str
) -> None:
    desk = make_desk()
    groq.script = [PASSING[trouble], PASSING[trouble]]
    assert await said(desk, way) == (REPLY, True, MODEL)
    assert len(groq.received) == 3
    assert desk.ledger.actions == ["remote.call", "remote.result"]
    assert (desk.ledger.result["outcome"], desk.ledger.result["attempts"]) == ("answered", 3)


@WAYS
@pytest.mark.parametrize("trouble", ["429", "498", "500", "503", "reset"])
async def test_what_does_not_pass_is_answered_by_the_local_model(
    make_desk: MakeDesk, groq: GroqServer, way: str, trouble: str
) -> None:
    desk = make_desk()
    groq.ordinary = PASSING[trouble]
    with capture_logs() as lines:
        assert await said(desk, way) == (LOCAL, False, "scripted")
    assert len(groq.received) == ATTEMPTS
    result = desk.ledger.result
    assert (result["outcome"], result["fallback"], result["attempts"]) == (
        "unavailable",
        True,
        ATTEMPTS,
    )
    warned = [line["event"] for line in lines if line["log_level"] != "debug"]
    assert warned == ["remote_unavailable"]


@WAYS
async def test_a_silent_server_is_tried_again_and_then_left(
    make_desk: MakeDesk, groq: GroqServer, way: str
) -> None:
    desk = make_desk(remote_timeout=2.0)
    groq.script = [Act(hang=True)]
    assert (await said(desk, way))[0] == REPLY
    groq.ordinary = Act(hang=True)
    assert (await said(desk, way))[0] == LOCAL
    assert len(groq.received) >= 3


@WAYS
async def test_a_server_that_is_not_there(make_desk: MakeDesk, way: str) -> None:
    desk = make_desk(remote_url="http://127.0.0.1:9", remote_timeout=1.0)
    assert (await said(desk, way))[0] == LOCAL
    assert "ConnectError" in desk.ledger.result["reason"]


async def test_pauses_grow_and_a_time_that_was_named_is_kept(
    make_desk: MakeDesk, groq: GroqServer
) -> None:
    desk = make_desk(remote_timeout=10.0)
    groq.script = [rate_limited("0.9"), groq_like.INTERNAL]
    await said(desk, "complete")
    first, second, third = (request.at for request in groq.received)
    assert second - first >= 0.9
    assert third - second >= 0.25


async def test_a_pause_longer_than_the_call_may_take_is_not_waited_for(
    make_desk: MakeDesk, groq: GroqServer
) -> None:
    desk = make_desk(remote_timeout=60.0)
    groq.script = [rate_limited("120")]
    assert (await said(desk, "complete"))[0] == LOCAL
    assert len(groq.received) == 1
    assert desk.ledger.result["attempts"] == 1


@WAYS
async def test_after_the_last_request_that_was_left_none_is_sent(
    make_desk: MakeDesk, groq: GroqServer, way: str
) -> None:
    desk = make_desk()
    none_left = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "2m59.56s",
    }
    groq.script = [Act(headers=dict(none_left))]
    assert (await said(desk, way))[0] == REPLY
    with capture_logs() as lines:
        assert await said(desk, way) == (LOCAL, False, "scripted")
    assert len(groq.received) == 1
    assert desk.ledger.actions == ["remote.call", "remote.result"]
    (line,) = lines
    assert line["event"] == "remote_skipped"
    assert 170 < line["seconds"] < 180


async def test_once_the_time_is_over_the_remote_model_is_asked_again(
    make_desk: MakeDesk, groq: GroqServer
) -> None:
    desk = make_desk()
    headers = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "300ms"}
    groq.script = [Act(headers=dict(headers))]
    assert [(await said(desk, "complete"))[1] for _ in range(2)] == [True, False]
    await asyncio.sleep(0.35)
    assert (await said(desk, "complete"))[1]


# --- what does not pass by itself -----------------------------------------------------------------


REFUSALS = {
    "400": groq_like.DECOMMISSIONED,
    "400 json": groq_like.BAD_JSON,
    "401": groq_like.INVALID_KEY,
    "403": groq_like.FORBIDDEN,
    "404": groq_like.NO_MODEL,
    "413": groq_like.TOO_LARGE,
    "422": groq_like.UNPROCESSABLE,
}


@WAYS
@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refusal_is_never_answered_by_the_local_model(
    make_desk: MakeDesk, groq: GroqServer, way: str, refusal: str
) -> None:
    desk = make_desk()
    groq.script = [REFUSALS[refusal]]
    with pytest.raises(RemoteRejected, match=refusal[:3]) as caught:
        await said(desk, way)
    assert caught.value.code == "remote_rejected"
    assert len(groq.received) == 1
    assert desk.local.calls == []
    assert (desk.ledger.result["outcome"], desk.ledger.result["fallback"]) == ("rejected", False)
    # It is told until a call succeeds.
    for _ in range(2):
        health = await desk.model.health()
        assert health.state == "ok"
        assert "remote:" in (health.detail or "")
        assert refusal[:3] in (health.detail or "")
    await said(desk, way)
    assert (await desk.model.health()).detail is None


@WAYS
async def test_a_key_that_is_gone_or_open_is_a_refusal(
    make_desk: MakeDesk, groq: GroqServer, way: str
) -> None:
    desk = make_desk()
    desk.key_file.chmod(0o644)
    with pytest.raises(RemoteRejected, match="other users"):
        await said(desk, way)
    desk.key_file.unlink()
    with pytest.raises(RemoteRejected, match="cannot be read"):
        await said(desk, way)
    assert groq.received == []
    assert desk.local.calls == []


async def test_a_changed_key_holds_at_once(make_desk: MakeDesk, groq: GroqServer) -> None:
    desk = make_desk()
    desk.key_file.write_text("gsk_anotherKEY0123456789")
    with pytest.raises(RemoteRejected, match="invalid_api_key"):
        await said(desk, "complete")
    desk.key_file.write_text(KEY)
    assert (await said(desk, "complete"))[1]


async def test_a_redirect_is_not_followed(make_desk: MakeDesk, groq: GroqServer) -> None:
    desk = make_desk()
    elsewhere = {"location": f"http://127.0.0.1:{groq.port}/elsewhere"}
    groq.script = [Act(status=307, headers=dict(elsewhere))]
    with pytest.raises(RemoteRejected, match="307"):
        await said(desk, "complete")
    assert [request.path for request in groq.received] == ["/openai/v1/chat/completions"]


async def test_no_proxy_is_asked(
    make_desk: MakeDesk, groq: GroqServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://192.0.2.1:3128")
    assert (await said(make_desk(), "complete"))[1]


# --- streams that end early -----------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [Act(reset=True, after=3), Act(hang=True, after=3)])
async def test_two_models_never_write_one_answer(
    make_desk: MakeDesk, groq: GroqServer, trouble: Act
) -> None:
    desk = make_desk(remote_timeout=1.0)
    groq.script = [trouble]
    texts: list[str] = []

    async def read() -> None:
        async for chunk in desk.model.stream(ASK, max_tokens=30):
            texts.append(chunk.text)  # noqa: PERF401 - what came before the error is the point

    with pytest.raises(ModelUnavailable):
        await read()
    assert REPLY.startswith("".join(texts))
    assert len(texts) >= 3
    assert desk.local.calls == []
    await desk.model.aclose()
    assert desk.ledger.result["outcome"] == "broke_off"


async def test_a_stream_that_breaks_before_its_first_word_is_begun_anew(
    make_desk: MakeDesk, groq: GroqServer
) -> None:
    desk = make_desk()
    groq.script = [Act(reset=True, after=0), Act("")]
    assert await said(desk, "stream") == ("", True, MODEL)
    assert desk.ledger.result["attempts"] == 2


async def test_who_leaves_early_leaves_a_line_in_the_audit_log(
    make_desk: MakeDesk, groq: GroqServer
) -> None:
    desk = make_desk()
    groq.script = [Act(hang=True, after=3)]
    async with aclosing(desk.model.stream(ASK, max_tokens=30)) as stream:
        async for chunk in stream:
            if chunk.text:
                break
    await desk.model.aclose()
    assert desk.ledger.result["outcome"] == "abandoned"


@WAYS
async def test_cancelling_a_call_leaves_a_line_in_the_audit_log(
    make_desk: MakeDesk, groq: GroqServer, way: str
) -> None:
    desk = make_desk()
    groq.ordinary = Act(hang=True)
    call = asyncio.ensure_future(said(desk, way))
    while not groq.received:
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await desk.model.aclose()
    assert desk.ledger.result["outcome"] == "abandoned"
    assert desk.local.calls == []


# --- what never leaves ----------------------------------------------------------------------------


SECRETS = [
    *("4111111111111111", "4111 1111 1111 1111", "hunter2", "ada@example.com", "+49 30 1234567"),
    *("gsk_abcDEF123456789012", "DE89 3704 0044 0532 0130 00", "eyJhbGciOi.eyJzdWIi.c2ln"),
]
TELLING = "Card {}, {}; my password is {}. Mail {}, call {}; key {}, IBAN {}, token {}. Why?"


@WAYS
async def test_no_secret_leaves_the_machine_nor_gets_into_log_or_audit(
    make_desk: MakeDesk, groq: GroqServer, way: str
) -> None:
    desk = make_desk()
    question = TELLING.format(*SECRETS)
    messages = [
        ChatMessage("system", question),
        ChatMessage("assistant", question),
        ChatMessage("user", question),
    ]
    groq.script = [groq_like.INTERNAL, Act(), groq_like.INVALID_KEY]
    with capture_logs() as lines:
        for _ in range(2):
            try:
                if way == "complete":
                    await desk.model.complete(messages, max_tokens=9)
                else:
                    async for _ in desk.model.stream(messages, max_tokens=9):
                        pass
            except RemoteRejected:
                pass
    assert len(groq.received) == 3
    told = json.dumps([desk.ledger.entries, lines], default=str)
    for secret in SECRETS:
        assert secret.encode() not in groq.everything
        assert secret not in told
    assert "Why?" not in told
    assert KEY not in told
    assert b"Why?" in groq.everything

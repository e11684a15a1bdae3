"""What the client makes of a server's answers, good and bad ones, over a real Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.domain.answer import TokenUsage
from appliance.errors import ModelRejected, ModelUnavailable
from appliance.llm.interface import ChatMessage, Chunk, Completion, ModelHealth
from appliance.llm.openai_client import OpenAIChatModel

pytestmark = pytest.mark.anyio

ASK = [ChatMessage("user", "Where is my order?")]
Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def folder() -> AsyncIterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="client-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


class Server:
    """Answers every request the same way, and remembers what it was asked."""

    def __init__(self, socket: Path, answer: bytes | Handler) -> None:
        self.socket = socket
        self.answer = answer
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[dict[str, str]] = []
        self.left = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = [
                line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
            ]
            body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
            self.bodies.append(json.loads(body or b"{}"))
            fields = (line.partition(": ") for line in head.decode().split("\r\n")[1:])
            self.heads.append({name.lower(): value for name, _, value in fields})
            if isinstance(self.answer, bytes):
                writer.write(self.answer)
                await writer.drain()
            else:
                answering = asyncio.ensure_future(self.answer(body, writer))
                leaving = asyncio.ensure_future(reader.read())
                await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if leaving.done():
                    self.left.set()
                for task in (answering, leaving):
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
        except OSError:
            self.left.set()  # while it was being written to
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def serving(
    folder: Path, answer: bytes | Handler, **options: Any
) -> AsyncIterator[tuple[Any, Server]]:
    server = Server(folder / "server.sock", answer)
    listening = await asyncio.start_unix_server(server.handle, str(server.socket))
    model = OpenAIChatModel(socket=server.socket, **options)
    try:
        yield model, server
    finally:
        await model.aclose()
        listening.close()


def http(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def sse(*lines: bytes) -> bytes:
    """A stream whose end is the connection's end."""
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        + b"".join(lines)
    )


def piece(content: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    choice = {
        "index": 0,
        "delta": {} if content is None else {"content": content},
        "finish_reason": finish,
    }
    return (
        b"data: " + json.dumps({"choices": [choice], **more}, ensure_ascii=False).encode() + b"\n\n"
    )


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
DONE = b"data: [DONE]\n\n"


async def collect(model: OpenAIChatModel, **options: Any) -> list[Chunk]:
    return [chunk async for chunk in model.stream(ASK, max_tokens=8, **options)]


async def test_reads_a_stream(folder: Path) -> None:
    usage = (
        b'data: {"choices": [], "usage": %s}\n\n'
        % json.dumps({**USAGE, "prompt_tokens_details": {"cached_tokens": 4}}).encode()
    )
    answer = sse(piece(""), piece("On "), piece("its way."), piece(finish="stop"), usage, DONE)
    async with serving(folder, answer) as (model, server):
        assert await collect(model, stop=["\n"]) == [
            Chunk("On "),
            Chunk("its way."),
            Chunk(finish_reason="stop"),
            Chunk(usage=TokenUsage(9, 4, 3)),
        ]
        assert server.bodies == [
            {
                "messages": [{"role": "user", "content": "Where is my order?"}],
                "max_tokens": 8,
                "temperature": 0,
                "stop": ["\n"],
                "stream": True,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            }
        ]


async def test_reads_what_other_servers_send(folder: Path) -> None:
    """Comments, CRLF, no space after a colon, separators in text, null, unknown fields."""
    answer = sse(
        b": keep alive\r\n\r\n",
        b"event: message\r\n",
        b'data:{"choices":[{"delta":{"role":"assistant","content":null}}],"x":1}\r\n\r\n',
        piece("a\u2028b\x85c"),
        piece("d", finish="length", usage={**USAGE, "prompt_tokens_details": None}, model="m"),
        DONE,
        b"data: after the end\n\n",
    )
    async with serving(folder, answer) as (model, _):
        assert await collect(model) == [
            Chunk("a\u2028b\x85c"),
            Chunk("d", "length", TokenUsage(9, 0, 3), model="m"),
        ]


async def test_reads_a_stream_that_arrives_byte_by_byte(folder: Path) -> None:
    async def dribble(_: bytes, writer: asyncio.StreamWriter) -> None:
        for byte in sse(piece("né😀"), piece(finish="stop"), DONE):
            writer.write(bytes([byte]))
            await writer.drain()

    async with serving(folder, dribble) as (model, _):
        assert "".join(chunk.text for chunk in await collect(model)) == "né😀"


async def test_reads_a_whole_completion(folder: Path) -> None:
    body = json.dumps(
        {
            "choices": [{"message": {"content": "On its way."}, "finish_reason": "length"}],
            "model": "llama-4",
            "usage": USAGE,
        }
    ).encode()
    async with serving(folder, http(200, body), model="llama") as (model, server):
        answer = await model.complete(ASK, max_tokens=8)
        assert answer == Completion("On its way.", "length", TokenUsage(9, 0, 3), model="llama-4")
        assert server.bodies[0]["model"] == "llama"


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("status", "header", "error", "retry_after"),
    [
        (400, "", ModelRejected, None),
        (401, "", ModelRejected, None),
        (404, "", ModelRejected, None),
        (302, "location: http://example.com/", ModelRejected, None),
        (408, "", ModelUnavailable, None),
        (429, "retry-after: 7", ModelUnavailable, 7),
        (429, "retry-after: 7.66", ModelUnavailable, 8),
        (498, "retry-after: 0.2", ModelUnavailable, 1),
        (500, "", ModelUnavailable, None),
        (503, "retry-after: 2", ModelUnavailable, 2),
        (503, "retry-after: soon", ModelUnavailable, None),
    ],
)
async def test_refusals(
    folder: Path,
    whole: bool,
    status: int,
    header: str,
    error: type[Exception],
    retry_after: int | None,
) -> None:
    body = b'{"error": {"message": "You said: where is my order?", "type": "bad", "code": "c1"}}'
    async with serving(folder, http(status, body, *([header] if header else []))) as (
        model,
        server,
    ):
        with pytest.raises(error, match=f"{status} .*c1") as caught:
            await (model.complete(ASK, max_tokens=8) if whole else collect(model))
        assert len(server.bodies) == 1  # nothing is retried
    assert getattr(caught.value, "retry_after", None) == retry_after
    assert "order" not in str(caught.value)  # servers quote the customer


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        sse(),
        sse(piece("half")),
        sse(piece("half"), DONE),
        sse(piece("half"), b'data: {"choices": [{"delta"\n\n'),
        sse(b"data: []\n\n"),
        sse(b'data: {"error": {"message": "stopping", "code": "stopping"}}\n\n'),
        sse(b"x" * (1 << 21)),
        http(200, b"<html>"),
        http(200, b"{}"),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:",
    ],
)
@pytest.mark.parametrize("whole", [True, False])
async def test_broken_answers_mean_unavailable(folder: Path, answer: bytes, whole: bool) -> None:
    async with serving(folder, answer) as (model, _):
        with pytest.raises(ModelUnavailable):
            await (model.complete(ASK, max_tokens=8) if whole else collect(model))


@pytest.mark.parametrize("whole", [True, False])
async def test_no_server_means_unavailable_at_once(folder: Path, whole: bool) -> None:
    model = OpenAIChatModel(socket=folder / "nobody.sock")
    started = time.monotonic()
    with pytest.raises(ModelUnavailable):
        await (model.complete(ASK, max_tokens=8) if whole else collect(model))
    assert time.monotonic() - started < 1
    assert (await model.health()).state == "down"
    await model.aclose()


@pytest.mark.parametrize("whole", [True, False])
async def test_a_call_has_a_limit_in_time(folder: Path, whole: bool) -> None:
    async def slowly(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(sse())
        while True:
            writer.write(piece("x"))
            await asyncio.sleep(0.05)

    async with serving(folder, slowly, timeout=0.3) as (model, server):
        started = time.monotonic()
        with pytest.raises(ModelUnavailable, match="TimeoutError"):
            await (model.complete(ASK, max_tokens=8) if whole else collect(model))
        assert 0.2 < time.monotonic() - started < 2
        await asyncio.wait_for(server.left.wait(), 2)


async def test_closing_the_stream_closes_the_connection(folder: Path) -> None:
    async def endless(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(sse())
        while True:
            writer.write(piece("x"))
            await asyncio.sleep(0.01)

    async with serving(folder, endless) as (model, server):
        stream = model.stream(ASK, max_tokens=8)
        assert (await anext(stream)).text == "x"
        await stream.aclose()
        await asyncio.wait_for(server.left.wait(), 2)


@pytest.mark.parametrize("whole", [True, False])
async def test_cancelling_a_call_closes_the_connection(folder: Path, whole: bool) -> None:
    async def silent(_: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with serving(folder, silent) as (model, server):
        call = asyncio.ensure_future(model.complete(ASK, max_tokens=8) if whole else collect(model))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(server.left.wait(), 2)


async def test_a_stream_may_be_read_by_several_tasks(folder: Path) -> None:
    answer = sse(piece("a"), piece("b"), piece(finish="stop"), DONE)
    async with serving(folder, answer) as (model, _):
        stream = model.stream(ASK, max_tokens=8)
        texts = [(await asyncio.create_task(anext(stream))).text for _ in range(3)]
        assert texts == ["a", "b", ""]
        await stream.aclose()


async def test_new_requests_follow_the_switched_link(folder: Path) -> None:
    link = folder / "engine.sock"
    model = OpenAIChatModel(socket=link)
    said = []
    servers = []
    for name in ("old", "new"):
        (folder / name).mkdir()
        body = json.dumps({"choices": [{"message": {"content": name}}]}).encode()
        server = Server(folder / name / "server.sock", http(200, body))
        servers.append(await asyncio.start_unix_server(server.handle, str(server.socket)))
        fresh = folder / "next.sock"
        fresh.symlink_to(server.socket)
        fresh.replace(link)
        said.append((await model.complete(ASK, max_tokens=8)).text)
    await model.aclose()
    for listening in servers:
        listening.close()
    assert said == ["old", "new"]


@pytest.mark.parametrize(
    ("answer", "health"),
    [
        (http(200, b'{"status":"ok","model":"m","sha256":"c"}'), ModelHealth("ok", "m", "c")),
        (
            http(503, b'{"status":"loading","detail":"making"}'),
            ModelHealth("loading", detail="making"),
        ),
        (http(503, b'{"status":"failed","detail":"gone"}'), ModelHealth("down", detail="gone")),
        (http(200, b""), ModelHealth("ok")),
        (http(503, b""), ModelHealth("down")),
    ],
)
async def test_health(folder: Path, answer: bytes, health: ModelHealth) -> None:
    async with serving(folder, answer) as (model, _):
        assert await model.health() == health


async def test_half_a_character_does_not_break_the_request(folder: Path) -> None:
    body = json.dumps({"choices": [{"message": {"content": "ok"}}]}).encode()
    async with serving(folder, http(200, body)) as (model, server):
        await model.complete([ChatMessage("user", "a\ud83d")], max_tokens=8)
        assert server.bodies[0]["messages"][0]["content"] == "a?"


async def test_no_proxy_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://192.0.2.1:3128")
    body = json.dumps({"choices": [{"message": {"content": "ok"}}]}).encode()
    async with serving(folder, http(200, body)) as (model, _):
        assert (await model.complete(ASK, max_tokens=8)).text == "ok"

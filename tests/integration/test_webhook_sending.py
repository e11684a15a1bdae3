"""One attempt against receivers of every kind, over real sockets on the loopback address."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import trustme
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from appliance.domain.receivers import AllowList, ReceiverGuard
from appliance.domain.webhook_secrets import WebhookSecrets
from appliance.errors import ReceiverRefused
from appliance.jobs import sending
from appliance.jobs.sending import RESPONSE_BYTES, Sender, Sent, resolve
from appliance.storage.records import Endpoint

pytestmark = [pytest.mark.anyio, pytest.mark.loopback]

SECRETS = WebhookSecrets(b"k" * 32)
BODY = '{"id":"evt-1","type":"webhook.test","data":{"text":"zwölf"}}'.encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
QUICK = 1.0
"""Deadline of attempts that are to run into it, in seconds."""
SLOW = 20.0
NAME = "hooks.corp.lan"
"""No name service knows it: whoever connects to it used the address that was checked."""

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Request:
    """What a receiver got."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A server that notes requests and answers them as it was told."""

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    server_name: str | None = None


@asynccontextmanager
async def receiving(
    answer: bytes | Answer = OK, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        receiver.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *fields = head.strip().split("\r\n")
            pairs = (f.partition(": ") for f in fields)
            headers = {name.lower(): value for name, _, value in pairs}
            body = await reader.readexactly(int(headers["content-length"]))
            receiver.requests.append(Request(line, headers, body))
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    def noted(_: object, name: str | None, __: object) -> None:
        receiver.server_name = name

    if tls is not None:
        tls.sni_callback = noted
    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def names(**known: Sequence[str]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    async def look(host: str, port: int) -> Sequence[str]:
        return known.get(host.replace(".", "_"), ("127.0.0.1",))

    return look


def sender(*allow: str, timeout: float = SLOW, **known: Sequence[str]) -> Sender:
    entries = allow or ("127.0.0.0/8:*", "[::1/128]:*")
    return Sender(ReceiverGuard(AllowList.parse(entries), names(**known)), SECRETS, timeout=timeout)


def endpoint(url: str, *, secret: str = "seed", ca_pem: str | None = None) -> Endpoint:
    return Endpoint(
        id="hook",
        url=url,
        ca_pem=ca_pem,
        active=True,
        failing_since=None,
        secret=secret,
        previous_secret=None,
        previous_secret_expires_at=None,
    )


async def attempt(by: Sender, to: Endpoint | str, now: datetime | None = None) -> Sent:
    to = endpoint(to) if isinstance(to, str) else to
    return await by.send(to, "evt-1", BODY, now or datetime.now(UTC))


def answering(status: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


# --- what arrives ---------------------------------------------------------------------------------


async def test_what_arrives_verifies_and_names_the_host_of_the_url() -> None:
    async with receiving() as receiver:
        sent = await attempt(sender(), f"http://{NAME}:{receiver.port}/hook?desk=1")
    assert (sent.status, sent.error, sent.response, sent.delivered) == (200, None, b"ok", True)
    assert 0 < sent.duration < SLOW
    (request,) = receiver.requests
    assert request.line == "POST /hook?desk=1 HTTP/1.1"
    assert request.body == BODY
    assert request.headers["host"] == f"{NAME}:{receiver.port}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("SmartSupport-Appliance/")
    found = Webhook(SECRETS.shown("seed")).verify(request.body, request.headers)
    assert found == json.loads(BODY)


async def test_two_secrets_sign_until_the_older_one_expires() -> None:
    now = datetime.now(UTC)
    rotating = replace(
        endpoint("http://127.0.0.1"),
        secret="new",
        previous_secret="old",
        previous_secret_expires_at=now + timedelta(seconds=1),
    )
    async with receiving() as receiver:
        rotating = replace(rotating, url=f"http://127.0.0.1:{receiver.port}")
        for at in (now, now + timedelta(seconds=1)):
            await attempt(sender(), rotating, at)
    during, after = receiver.requests
    for request, stored in [(during, "new"), (during, "old"), (after, "new")]:
        Webhook(SECRETS.shown(stored)).verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRETS.shown("old")).verify(after.body, after.headers)


async def test_every_attempt_has_the_same_id_and_its_own_time() -> None:
    now = datetime.now(UTC)
    async with receiving() as receiver:
        for at in (now, now + timedelta(minutes=3)):
            await attempt(sender(), f"http://127.0.0.1:{receiver.port}", at)
    first, second = (request.headers for request in receiver.requests)
    assert first["webhook-id"] == second["webhook-id"] == "evt-1"
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 180


async def test_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        async with receiving(host="::1") as receiver:
            sent = await attempt(sender(), f"http://[::1]:{receiver.port}/")
    except OSError:
        pytest.skip("no IPv6 loopback here")
    assert sent.status == 200
    assert receiver.requests[0].headers["host"] == f"[::1]:{receiver.port}"


async def test_the_environments_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as receiver, receiving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        sent = await attempt(sender(), f"http://{NAME}:{receiver.port}")
    assert sent.status == 200
    assert (receiver.connections, proxy.connections) == (1, 0)


# --- where it goes --------------------------------------------------------------------------------


async def test_what_is_not_allowed_is_not_connected_to() -> None:
    async with receiving() as receiver:
        for by, host in [
            (sender("10.2.0.0/16:*"), NAME),
            (sender("127.0.0.2:*"), "127.0.0.1"),
            (sender("127.0.0.1:1"), "127.0.0.1"),
            (sender(hooks_corp_lan=["127.0.0.1", "10.2.3.4"]), NAME),
            (sender("0.0.0.0/0:*"), "127.0.0.1"),
            (sender(), "127.1"),
            (sender(), "user@127.0.0.1"),
        ]:
            sent = await attempt(by, f"http://{host}:{receiver.port}/")
            assert sent.status is None
            assert sent.error is not None
            assert sent.error.startswith("refused: ")
            assert not sent.delivered
    assert receiver.connections == 0


async def test_a_name_that_was_rebound_after_saving_is_not_connected_to() -> None:
    answers = [["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1", "10.0.0.1"]]

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    async with receiving() as receiver:
        guard = ReceiverGuard(AllowList.parse(["127.0.0.0/8:*"]), rebinding)
        url = f"http://{NAME}:{receiver.port}/"
        assert await guard.admit(url)
        for _ in range(2):
            sent = await attempt(Sender(guard, SECRETS, timeout=SLOW), url)
            assert sent.error is not None
            assert sent.error.startswith("refused: ")
    assert receiver.connections == 0
    assert answers == []  # one question for each attempt: no second one that could differ


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_redirects_are_not_followed(status: str) -> None:
    async with receiving() as elsewhere:
        location = f"Location: http://127.0.0.1:{elsewhere.port}/"
        async with receiving(answering(status, location)) as receiver:
            sent = await attempt(sender(), f"http://127.0.0.1:{receiver.port}")
    assert sent.status == int(status[:3])
    assert not sent.delivered
    assert (receiver.connections, elsewhere.connections) == (1, 0)


async def test_the_next_checked_address_is_tried() -> None:
    async with receiving() as receiver:
        by = sender(hooks_corp_lan=["::1", "127.0.0.1"])
        sent = await attempt(by, f"http://{NAME}:{receiver.port}")
    assert sent.status == 200


async def test_the_machines_own_name_service() -> None:
    assert set(await resolve("localhost", 80)) <= {"127.0.0.1", "::1"}
    with pytest.raises(ReceiverRefused):
        await resolve("no-such-name.invalid", 80)


async def test_a_lookup_that_hangs_holds_up_neither_others_nor_whoever_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, released = socket.getaddrinfo, threading.Event()

    def slow(host: str, *arguments: Any, **options: Any) -> Any:
        if host == NAME:
            released.wait(60)
        return real("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setattr(sending, "RESOLVE_SECONDS", QUICK)
    try:
        stuck = [asyncio.create_task(resolve(NAME, 80)) for _ in range(50)]
        for _ in range(50):
            assert await resolve("other.lan", 80) == ["127.0.0.1"]
        outcomes = await asyncio.gather(*stuck, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ReceiverRefused}
    finally:
        released.set()


# --- TLS ------------------------------------------------------------------------------------------


def tls_of(ca: trustme.CA, *hosts: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*hosts).configure_cert(context)
    return context


def pem(ca: trustme.CA) -> str:
    return ca.cert_pem.bytes().decode()


async def test_a_private_authority_is_trusted_and_the_name_asked_for() -> None:
    ca = trustme.CA()
    async with receiving(tls=tls_of(ca, NAME)) as receiver:
        to = endpoint(f"https://{NAME}:{receiver.port}/", ca_pem=pem(ca))
        sent = await attempt(sender(), to)
    assert sent.status == 200, sent
    assert receiver.server_name == NAME


async def test_a_certificate_of_an_address() -> None:
    ca = trustme.CA()
    async with receiving(tls=tls_of(ca, "127.0.0.1")) as receiver:
        to = endpoint(f"https://127.0.0.1:{receiver.port}/", ca_pem=pem(ca))
        assert (await attempt(sender(), to)).status == 200


@pytest.mark.parametrize("case", ["unknown", "another", "wrong name", "nonsense"])
async def test_what_cannot_be_trusted_gets_nothing(case: str) -> None:
    ca = trustme.CA()
    tls = tls_of(ca, "other.lan" if case == "wrong name" else NAME)
    trusted = {"unknown": None, "another": pem(trustme.CA()), "nonsense": "nonsense"}
    async with receiving(tls=tls) as receiver:
        to = endpoint(f"https://{NAME}:{receiver.port}/", ca_pem=trusted.get(case, pem(ca)))
        sent = await attempt(sender(timeout=5), to)
    assert sent.status is None
    assert sent.error is not None
    assert sent.error.startswith("refused: " if case == "nonsense" else "tls: "), sent.error
    assert receiver.requests == []


async def test_a_receiver_without_tls_does_not_get_what_was_meant_for_one_with_it() -> None:
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.extend(await reader.read(10_000))
        writer.write(answering("400 Bad Request"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        sent = await attempt(sender(), f"https://127.0.0.1:{port}/")
    assert sent.error is not None
    assert sent.error.startswith("tls: "), sent.error
    assert received
    assert b"evt-1" not in received


# --- receivers that misbehave ---------------------------------------------------------------------


@pytest.mark.parametrize("status", ["204 No Content", "410 Gone", "429 Slow", "500 Oh", "503 Full"])
async def test_any_status_comes_back(status: str) -> None:
    async with receiving(f"HTTP/1.1 {status}\r\n\r\n".encode()) as receiver:
        sent = await attempt(sender(), f"http://127.0.0.1:{receiver.port}")
    assert (sent.status, sent.error) == (int(status[:3]), None)
    assert sent.delivered == status.startswith("2")


async def test_retry_after_in_both_forms() -> None:
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    later = format_datetime(now + timedelta(minutes=2), usegmt=True)
    earlier = format_datetime(now - timedelta(minutes=2), usegmt=True)
    for value, seconds in [
        ("90", 90.0),
        (later, 120.0),
        (earlier, 0.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("9" * 400, 999_999_999.0),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
    ]:
        async with receiving(answering("429 Slow", f"Retry-After: {value}")) as receiver:
            sent = await attempt(sender(), f"http://127.0.0.1:{receiver.port}", now)
        assert (sent.status, sent.retry_after) == (429, seconds), value


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A body of 300 MB, or as much of it as is taken."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 300000000\r\n\r\n")
    for _ in range(300):
        writer.write(b"x" * 1_000_000)
        await writer.drain()


async def test_a_huge_body_is_left_where_it_is() -> None:
    async with receiving(endless) as receiver:
        sent = await attempt(sender(), f"http://127.0.0.1:{receiver.port}")
    assert (sent.status, sent.response) == (200, b"x" * RESPONSE_BYTES)


async def test_a_compressed_body_is_not_unpacked() -> None:
    bomb = b"\x1f\x8b" + b"\0" * 100
    answer = answering("200 OK", "Content-Encoding: gzip", body=bomb)
    async with receiving(answer) as receiver:
        sent = await attempt(sender(), f"http://127.0.0.1:{receiver.port}")
    assert sent.response == bomb
    assert receiver.requests[0].headers["accept-encoding"] == "identity"


async def hang(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    await asyncio.sleep(600)


async def trickle_head(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: 1\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def go_on(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("misbehave", [hang, trickle_head, go_on])
async def test_the_deadline_is_over_everything(misbehave: Answer) -> None:
    async with receiving(misbehave) as receiver:
        sent = await attempt(sender(timeout=QUICK), f"http://127.0.0.1:{receiver.port}")
    assert sent.status is None
    assert sent.error is not None
    assert sent.error.startswith("timeout: ")
    assert sent.duration >= QUICK


async def test_a_name_service_that_hangs_does_not_hold_an_attempt() -> None:
    async def silent(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(600)
        return ()

    guard = ReceiverGuard(AllowList.parse(["127.0.0.1"]), silent)
    sent = await attempt(Sender(guard, SECRETS, timeout=QUICK), f"http://{NAME}/")
    assert sent.error is not None
    assert sent.error.startswith("timeout: ")


async def trickle_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def break_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nxx")
    await writer.drain()


@pytest.mark.parametrize("misbehave", [trickle_body, break_off])
async def test_the_status_counts_whatever_becomes_of_the_body(misbehave: Answer) -> None:
    """A receiver that said 200 has the event: sending it again would be a duplicate for nothing."""
    async with receiving(misbehave) as receiver:
        sent = await attempt(sender(), f"http://127.0.0.1:{receiver.port}")
    assert (sent.status, sent.error, sent.delivered) == (200, None, True)
    assert set(sent.response) == {ord("x")}


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def test_connections_that_break() -> None:
    for misbehave, kind in [(reset, "connection: "), (close, "protocol: ")]:
        async with receiving(misbehave) as receiver:
            sent = await attempt(sender(), f"http://127.0.0.1:{receiver.port}")
        assert sent.status is None
        assert sent.error is not None
        assert sent.error.startswith(kind), sent.error
    sent = await attempt(sender(), f"http://127.0.0.1:{receiver.port}")
    assert sent.error == "connection: Connection refused"


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Header\r\n\r\n",
    ],
)
async def test_what_is_no_http(answer: bytes) -> None:
    async with receiving(answer) as receiver:
        sent = await attempt(sender(timeout=5), f"http://127.0.0.1:{receiver.port}")
    assert sent.status is None
    assert sent.error is not None
    assert sent.error.split(":")[0] in ("protocol", "connection")


async def test_a_receiver_that_hangs_delays_nobody() -> None:
    by = sender(timeout=5)
    async with receiving(hang) as hanging, receiving() as well:
        stuck = [
            asyncio.create_task(attempt(by, f"http://127.0.0.1:{hanging.port}")) for _ in range(20)
        ]
        while hanging.connections < len(stuck):
            await asyncio.sleep(0.01)
        others = [await attempt(by, f"http://127.0.0.1:{well.port}") for _ in range(20)]
        assert not any(task.done() for task in stuck)
        assert all(sent.status == 200 for sent in others)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)

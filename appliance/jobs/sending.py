"""One attempt to deliver: ask where, connect to what was checked, send, and hear a little of the
answer.

A receiver is somebody else's program: it may hang, trickle, redirect, answer without end. An
attempt has one deadline over everything; nothing is followed, decoded or kept beyond the first
bytes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpcore

from appliance import __version__
from appliance.domain.receivers import AllowList, Receiver, ReceiverGuard, private_trust
from appliance.domain.webhook_secrets import WebhookSecrets
from appliance.errors import ReceiverRefused
from appliance.jobs import signing
from appliance.operations.secrets import load_secret
from appliance.settings import Settings
from appliance.storage.records import Endpoint

RESPONSE_BYTES: Final = 2_048
"""How much of an answer is read; the connection is closed upon the rest."""
RESPONSE_SECONDS: Final = 2.0
"""How long it may take once the status is there: the status decides, the rest is for people."""
CONNECT_SECONDS: Final = 5.0
"""How long one address may take to accept, where there is another to try."""
ERROR_CHARS: Final = 300
RESOLVE_SECONDS: Final = 8.0


@dataclass(frozen=True, slots=True)
class Sent:
    """How an attempt ended: with the receiver's status, or with the error that kept it from
    giving one, whose first word says of what kind it is (refused, timeout, tls, connection,
    protocol). ``duration`` and ``retry_after`` are in seconds; ``response`` is the beginning of the
    body, as it came."""

    status: int | None
    duration: float
    error: str | None = None
    response: bytes = b""
    retry_after: float | None = None

    @property
    def delivered(self) -> bool:
        """Only 2xx is: a redirect would send what was signed for one to another."""
        return self.status is not None and 200 <= self.status < 300


class Sender:
    """Sends to whom the guard admits. Safe to use for many attempts at once on one event loop.

    :param timeout: the longest an attempt may take, name service and handshake included, in
        seconds.
    """

    def __init__(self, guard: ReceiverGuard, secrets: WebhookSecrets, *, timeout: float) -> None:
        self._guard = guard
        self._secrets = secrets
        self._timeout = timeout
        self._trusted: ssl.SSLContext | None = None

    async def send(self, endpoint: Endpoint, event_id: str, body: bytes, now: datetime) -> Sent:
        """Make one attempt. Whatever a receiver or the network does comes back as a ``Sent``."""
        started = time.monotonic()
        answer = _Answer()
        error: str | None = None
        try:
            async with asyncio.timeout(self._timeout):
                receiver = await self._guard.admit(endpoint.url)
                headers = signing.headers(self._keys(endpoint, now), event_id, now, body)
                await self._post(receiver, endpoint.ca_pem, headers, body, answer)
        except ReceiverRefused as refused:
            error = f"refused: {refused.detail}"
        except (TimeoutError, httpcore.TimeoutException):
            error = f"timeout: no answer within {self._timeout:g} s"
        except httpcore.ProtocolError as unreadable:
            error = f"protocol: {unreadable}"
        except (httpcore.NetworkError, OSError, ValueError) as trouble:
            error = _network_error(trouble)
        return Sent(
            status=answer.status,
            duration=time.monotonic() - started,
            # Once there is a status, what happens to the rest of the answer changes nothing.
            error=None if answer.status or error is None else error[:ERROR_CHARS],
            response=bytes(answer.body),
            retry_after=_seconds(answer.retry_after, now),
        )

    def _keys(self, endpoint: Endpoint, now: datetime) -> Iterable[bytes]:
        yield self._secrets.key(endpoint.secret)
        expires = endpoint.previous_secret_expires_at
        if endpoint.previous_secret is not None and expires is not None and now < expires:
            yield self._secrets.key(endpoint.previous_secret)

    async def _post(
        self,
        receiver: Receiver,
        ca: str | None,
        headers: dict[str, str],
        body: bytes,
        answer: _Answer,
    ) -> None:
        target = receiver.target
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._context(ca) if target.scheme == "https" else None,
            network_backend=_Checked(receiver.addresses),
        )
        # The host stays the name: it is what certificates and virtual hosts are looked up by.
        url = httpcore.URL(
            scheme=target.scheme, host=target.host, port=target.port, target=target.target
        )
        sent = {
            "Host": target.authority,
            "User-Agent": f"SmartSupport-Appliance/{__version__}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "Connection": "close",
            **headers,
        }
        async with (
            pool,
            pool.stream("POST", url, headers=list(sent.items()), content=body) as response,
        ):
            answer.status = response.status
            named = {name.lower(): value for name, value in response.headers}
            answer.retry_after = named.get(b"retry-after", b"").decode("latin-1").strip()
            async with asyncio.timeout(RESPONSE_SECONDS):
                async for part in response.aiter_stream():
                    answer.body += part[: RESPONSE_BYTES - len(answer.body)]
                    if len(answer.body) >= RESPONSE_BYTES:
                        break

    def _context(self, ca: str | None) -> ssl.SSLContext:
        """Trust in the machine's own authorities, or in those of the endpoint and no other.

        :raises ReceiverRefused: the endpoint's certificates cannot be read.
        """
        if ca is not None:
            return private_trust(ca)
        if self._trusted is None:
            self._trusted = ssl.create_default_context()
        return self._trusted


class _Answer:
    """What has been heard so far; it counts even if the rest never comes."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.retry_after = ""
        self.body = bytearray()


class _Checked(httpcore.AnyIOBackend):
    """Connects to the addresses that were checked, whatever host it is told."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        *others, last = self._addresses
        for address in others:
            try:
                return await super().connect_tcp(
                    address, port, CONNECT_SECONDS, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await super().connect_tcp(last, port, timeout, local_address, socket_options)


def receiver_guard(settings: Settings) -> ReceiverGuard:
    """The guard that the settings describe, over this machine's name service.

    :raises SettingsError: the allow-list cannot be read.
    """
    return ReceiverGuard(AllowList.parse(settings.webhook_allow), resolve)


def webhook_secrets(settings: Settings) -> WebhookSecrets:
    """The secrets of this data folder's webhooks.

    :raises SettingsError: their key file cannot be used.
    """
    return WebhookSecrets(load_secret(settings.data_dir, "webhooks"))


async def resolve(host: str, port: int) -> Sequence[str]:
    """All addresses of a name, by this machine's own name service; a ``domain.receivers.Resolve``.

    :raises ReceiverRefused: the name service does not answer.
    """
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await _looked_up(host, port)
    except (OSError, UnicodeError) as error:
        raise ReceiverRefused(
            f"{host} does not resolve.", hint="Check the name and the name service."
        ) from error
    return list(dict.fromkeys(found))


def _looked_up(host: str, port: int) -> asyncio.Future[list[str]]:
    """The lookup in a thread of its own. Name services cannot be told to stop: in a pool one that
    hangs would hold up others' lookups, and the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[str]] = loop.create_future()

    def settle(found: list[str], error: Exception | None) -> None:
        if future.done():
            return  # nobody waits any more
        if error is None:
            future.set_result(found)
        else:
            future.set_exception(error)

    def look() -> None:
        found: list[str] = []
        error: Exception | None = None
        try:
            known = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = [str(address[0]) for *_, address in known]
        except (OSError, UnicodeError) as trouble:
            error = trouble
        with suppress(RuntimeError):  # the loop ended meanwhile
            loop.call_soon_threadsafe(settle, found, error)

    threading.Thread(target=look, name="resolve", daemon=True).start()
    return future


def _network_error(error: Exception) -> str:
    # httpcore wraps what it met, and anyio what each address said.
    met = error.args[0] if isinstance(error, httpcore.NetworkError) and error.args else error
    if isinstance(met, ssl.SSLCertVerificationError):
        return f"tls: {met.verify_message}"
    if isinstance(met, ssl.SSLError):
        return f"tls: {met.reason or met}"
    if isinstance(met, OSError):
        first = met if met.errno is not None else met.__cause__
        if isinstance(first, OSError) and first.errno:
            return f"connection: {os.strerror(first.errno)}"
    return f"connection: {met or 'closed'}"


def _seconds(retry_after: str, now: datetime) -> float | None:
    """Both forms of Retry-After; None for none, or one that cannot be read."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None

"""A receiver of webhooks on a loopback port, which behaves as a test tells it to.

It runs in threads of its own, so that it serves a worker in this process and one in another alike.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError


@dataclass(frozen=True)
class Reply:
    """What a receiver does with a request."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    huge: int = 0
    """Length of a body that is sent until nobody reads any more."""
    hang: float = 0.0
    """Seconds of silence before anything."""
    reset: bool = False


OK = Reply()


@dataclass(frozen=True)
class Received:
    """One request; ``valid`` by the official library, where the receiver knows a secret."""

    headers: dict[str, str]
    body: bytes
    at: float
    valid: bool | None

    @property
    def event_id(self) -> str:
        return self.headers["webhook-id"]


class Receiver:
    """Serves from the moment it is made until ``close``."""

    def __init__(self, reply: Reply | Callable[[Received], Reply] = OK) -> None:
        self.reply = reply
        self.received: list[Received] = []
        self.secret: str | None = None
        self.closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer._serve(self)

            def log_message(self, *arguments: object) -> None:
                return

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def port(self) -> int:
        port: int = self._server.server_address[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def counts(self) -> Counter[str]:
        """How often each event arrived, by its id."""
        return Counter(each.event_id for each in list(self.received))

    @property
    def all_valid(self) -> bool:
        """Whether every request carried a valid signature when it came."""
        return bool(self.received) and all(each.valid for each in list(self.received))

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _valid(self, headers: dict[str, str], body: bytes) -> bool | None:
        if self.secret is None:
            return None
        try:
            Verifier(self.secret).verify(body, headers)
        except WebhookVerificationError:
            return False
        return True

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers["content-length"])
        body = handler.rfile.read(length)
        if len(body) < length:
            return  # its sender was killed in the middle: no request, and nothing to answer
        headers = {name.lower(): value for name, value in handler.headers.items()}
        received = Received(headers, body, time.monotonic(), self._valid(headers, body))
        self.received.append(received)
        reply = self.reply if isinstance(self.reply, Reply) else self.reply(received)
        handler.close_connection = True
        if reply.hang:
            self.closing.wait(reply.hang)
        if reply.reset:
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.connection.close()
            return
        try:
            handler.send_response(reply.status)
            for name, value in reply.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(reply.huge or len(reply.body)))
            handler.end_headers()
            handler.wfile.write(reply.body if not reply.huge else b"")
            sent = 0
            while sent < reply.huge and not self.closing.is_set():
                handler.wfile.write(b"x" * 65_536)
                sent += 65_536
        except OSError:
            return  # the sender has heard enough


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        return  # a sender that is killed resets its connections

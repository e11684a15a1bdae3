"""A server on loopback that behaves like Groq, as far as a client can tell.

It checks keys and request fields as strictly, sends the rate-limit headers with every answer, and
remembers everything it received, so that a test can prove what never left. What it does with each
request is a script: a list of acts, one for each request, and the ordinary answer once the list is
empty.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

KEY = "gsk_loopbackTESTkey0123456789abcdefghij"
MODEL = "openai/gpt-oss-120b"
REPLY = "Open the settings of your account, choose Security, and follow the link you find there."

_FIELDS = {
    *("messages", "model", "temperature", "top_p", "seed", "stop", "stream", "stream_options"),
    *("max_tokens", "max_completion_tokens", "n", "user", "response_format", "tools"),
    *("reasoning_effort", "include_reasoning", "reasoning_format", "service_tier"),
}


@dataclass(frozen=True)
class Act:
    """One answer.

    :param text: the words of a completion.
    :param status: an error's status, with its ``error`` object.
    :param headers: added to the usual ones, or instead of them; None leaves one out.
    :param hang: say nothing until the client leaves; with a stream, after ``after`` words.
    :param reset: cut the connection; with a stream, after ``after`` words.
    """

    text: str = REPLY
    status: int = 200
    error: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str | None] = field(default_factory=dict)
    hang: bool = False
    reset: bool = False
    after: int = 0


def refused(status: int, kind: str, code: str | None, message: str, **headers: str) -> Act:
    """An error as Groq words it."""
    error = {"message": message, "type": kind, **({"code": code} if code else {})}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Act(status=status, error=error, headers=dict(named))


def rate_limited(retry_after: str | None = None, **headers: str) -> Act:
    """429: the minute's tokens are used up."""
    given = {"retry_after": retry_after} if retry_after else {}
    return refused(
        429,
        "tokens",
        "rate_limit_exceeded",
        f"Rate limit reached for model `{MODEL}` on tokens per minute (TPM): Limit 6000.",
        **given,
        **headers,
    )


INVALID_KEY = refused(401, "invalid_request_error", "invalid_api_key", "Invalid API Key")
DECOMMISSIONED = refused(
    400,
    "invalid_request_error",
    "model_decommissioned",
    "The model `llama3-8b-8192` has been decommissioned and is no longer supported.",
)
BAD_JSON = refused(400, "invalid_request_error", "json_validate_failed", "Failed to generate JSON.")
FORBIDDEN = refused(403, "permissions_error", "model_permission_blocked_org", "Blocked.")
NO_MODEL = refused(404, "invalid_request_error", "model_not_found", "The model does not exist.")
TOO_LARGE = refused(413, "tokens", "rate_limit_exceeded", "Request too large for model.")
UNPROCESSABLE = refused(422, "invalid_request_error", None, "Semantic errors in the request.")
FULL = refused(498, "flex_tier_capacity", "capacity_exceeded", "Flex tier capacity exceeded.")
INTERNAL = refused(500, "internal_server_error", None, "Internal Server Error")
DOWN = refused(503, "internal_server_error", None, "Service Unavailable", retry_after="1")


@dataclass(frozen=True)
class Received:
    """A request as it arrived; ``raw`` is everything: the request's line, headers, body."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    raw: bytes
    at: float
    """On the monotonic clock."""


class GroqServer:
    """Runs in a thread, so that tests and whole processes can ask it alike."""

    def __init__(self) -> None:
        self.script: list[Act] = []
        self.ordinary = Act()
        self.received: list[Received] = []
        self.seen: dict[str, list[str]] = {}
        """Words of the prompts so far, for the count of cached tokens."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.desk = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.stopping = threading.Event()

    def __enter__(self) -> GroqServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        port: int = self._server.server_address[1]
        return port

    @property
    def url(self) -> str:
        """What the setting ``remote.url`` has to be."""
        return f"http://127.0.0.1:{self.port}/openai"

    @property
    def everything(self) -> bytes:
        """All that ever arrived."""
        return b"\n".join(request.raw for request in self.received)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def groq(self) -> GroqServer:
        groq: GroqServer = self.server.desk  # type: ignore[attr-defined]
        return groq

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Tests read what was received, not a log."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client left
            super().handle()

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        content = self.rfile.read(length)
        body = json.loads(content)
        self.groq.received.append(
            Received(
                self.path,
                {name.lower(): value for name, value in self.headers.items()},
                body,
                b"\n".join((self.requestline.encode(), str(self.headers).encode(), content)),
                time.monotonic(),
            )
        )
        self._answer(self._checked(body) or self._next(), body)

    def _next(self) -> Act:
        script = self.groq.script
        return script.pop(0) if script else self.groq.ordinary

    def _checked(self, body: dict[str, Any]) -> Act | None:
        """What Groq refuses before it looks at its limits."""
        if self.path != "/openai/v1/chat/completions":
            return refused(404, "invalid_request_error", "unknown_url", f"Unknown URL {self.path}")
        if self.headers.get("authorization") != f"Bearer {KEY}":
            return INVALID_KEY
        unknown = sorted(body.keys() - _FIELDS)
        options = body.get("stream_options") or {}
        unknown += [f"stream_options.{name}" for name in options.keys() - {"include_usage"}]
        if unknown:
            return refused(
                400, "invalid_request_error", None, f"property '{unknown[0]}' is unsupported"
            )
        if not body.get("model") or not body.get("messages"):
            return refused(400, "invalid_request_error", None, "property is missing")
        return None

    def _answer(self, act: Act, body: dict[str, Any]) -> None:
        if (act.hang or act.reset) and not body.get("stream"):
            self._stay() if act.hang else self._cut()
            return
        if act.status != 200:
            self._send(act, json.dumps({"error": act.error}).encode())
            return
        if body.get("stream"):
            self._stream(act, body)
            return
        text, reason = _limited(_in_form(act.text, body), body)
        whole = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "logprobs": None,
                    "finish_reason": reason,
                }
            ],
            "usage": self._usage(body, text),
            "system_fingerprint": "fp_1",
            "x_groq": {"id": "req_1"},
        }
        self._send(act, json.dumps(whole).encode())

    def _stream(self, act: Act, body: dict[str, Any]) -> None:
        self._head(act, [("content-type", "text/event-stream"), ("connection", "close")])
        text, reason = _limited(act.text, body)
        words = _words(text)
        self._piece(body, {"role": "assistant", "content": ""}, x_groq={"id": "req_1"})
        for number, word in enumerate(words):
            if (act.hang or act.reset) and number == act.after:
                self._stay() if act.hang else self._cut()
                return
            self._piece(body, {"content": word})
        usage = self._usage(body, text)
        more = {"usage": usage} if (body.get("stream_options") or {}).get("include_usage") else {}
        self._piece(body, {}, reason, x_groq={"id": "req_1", "usage": usage}, **more)
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _piece(
        self, body: dict[str, Any], delta: dict[str, str], reason: str | None = None, **more: Any
    ) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        piece = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": body["model"],
            "choices": [choice],
            **more,
        }
        self.wfile.write(b"data: " + json.dumps(piece).encode() + b"\n\n")
        self.wfile.flush()

    def _usage(self, body: dict[str, Any], text: str) -> dict[str, Any]:
        prompt = [word for message in body["messages"] for word in _words(message["content"])]
        seen = self.groq.seen.get(body["model"], [])
        pairs = enumerate(zip(prompt, seen, strict=False))
        cached = next((at for at, (one, other) in pairs if one != other), len(seen))
        self.groq.seen[body["model"]] = prompt
        generated = len(_words(text))
        return {
            "queue_time": 0.01,
            "prompt_tokens": len(prompt),
            "prompt_time": 0.01,
            "completion_tokens": generated,
            "completion_time": 0.01,
            "total_tokens": len(prompt) + generated,
            "prompt_tokens_details": {"cached_tokens": min(cached, len(prompt) - 1)},
        }

    def _send(self, act: Act, content: bytes) -> None:
        length = ("content-length", str(len(content)))
        self._head(act, [("content-type", "application/json"), length])
        self.wfile.write(content)

    def _head(self, act: Act, own: Sequence[tuple[str, str]]) -> None:
        headers: dict[str, str | None] = {
            "x-request-id": "req_1",
            "x-ratelimit-limit-requests": "14400",
            "x-ratelimit-limit-tokens": "18000",
            "x-ratelimit-remaining-requests": "14370",
            "x-ratelimit-remaining-tokens": "17997",
            "x-ratelimit-reset-requests": "2m59.56s",
            "x-ratelimit-reset-tokens": "7.66s",
            **dict(own),
            **act.headers,
        }
        self.send_response(act.status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()

    def _stay(self) -> None:
        """Keep silent until the client leaves or the server ends."""
        self.connection.settimeout(0.05)
        while not self.groq.stopping.is_set():
            try:
                if not self.connection.recv(1):
                    break
            except TimeoutError:
                continue
        self.close_connection = True

    def _cut(self) -> None:
        """End the connection with a reset instead of a farewell."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def _words(text: str) -> list[str]:
    parts = text.split(" ")
    return [part if at == 0 else f" {part}" for at, part in enumerate(parts)] if text else []


def _in_form(text: str, body: dict[str, Any]) -> str:
    """What a model that is held to a schema says: the words where they are a document, else one."""
    asked = body.get("response_format")
    if asked is None or text.startswith("{"):
        return text
    return json.dumps(_document(asked["json_schema"]["schema"]))


def _document(schema: dict[str, Any]) -> Any:
    if "enum" in schema:
        return schema["enum"][-1]
    if schema["type"] == "object":
        return {name: _document(inner) for name, inner in schema["properties"].items()}
    if schema["type"] == "array":
        return [_document(schema["items"])] * schema["minItems"]
    return {"boolean": True, "integer": schema.get("maximum", 1), "string": ""}[schema["type"]]


def _limited(text: str, body: dict[str, Any]) -> tuple[str, str]:
    words = _words(text)
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or len(words)
    shortened = "".join(words[:limit])
    found = [at for at in (shortened.find(end) for end in body.get("stop") or ()) if at >= 0]
    if found:
        return shortened[: min(found)], "stop"
    return shortened, "length" if len(words) > limit else "stop"


@pytest.fixture
def groq() -> Iterator[GroqServer]:
    """A server of one's own."""
    with GroqServer() as server:
        yield server

"""``Idempotency-Key`` on POSTs: a request that is sent again is answered again, not carried out
again."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Final, TypeVar

from litestar import Request
from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from appliance.api.auth import count, identify
from appliance.bootstrap import Appliance
from appliance.domain import once as claims
from appliance.domain.once import Claim, Once
from appliance.errors import (
    ApplianceError,
    Conflict,
    InvalidInput,
    KeyReused,
    Unauthenticated,
    UnderWay,
)
from appliance.services.access import Principal
from appliance.storage.tables import CONTENT_CHARS

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"
KEY_MAX_CHARS: Final = 255
OWN: Final = "claims_itself"
"""Routes with this option claim their requests together with what they store."""
TOLD_ONCE: Final = "told_once"
"""Routes with this option answer with a secret: their answers are not kept."""

T = TypeVar("T")

_KEY = re.compile(rf"[\x21-\x7e]{{1,{KEY_MAX_CHARS}}}", re.ASCII)


class OncePosts(ASGIMiddleware):
    """Claims POSTs that come with a key, and keeps what was answered to them."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, appliance: Appliance) -> None:
        self._appliance = appliance

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Answer a request, from what was kept where there is something.

        :raises InvalidInput: the key is empty, too long or has odd characters.
        :raises KeyReused, UnderWay, Conflict: see ``Idempotency.begin``.
        """
        handler: Any = scope["route_handler"]
        request: Request[Any, Any, Any] = Request(scope, receive=receive, send=send)
        if scope.get("method") != "POST" or HEADER not in request.headers or handler.opt.get(OWN):
            await next_app(scope, receive, send)
            return
        try:
            principal = await identify(request, self._appliance)
        except Unauthenticated:
            # Nobody's key: the route refuses, or it needs nobody and there is nothing to protect.
            await next_app(scope, receive, send)
            return
        # A request told again is a request too: else one key could ask for it without end.
        count(request, self._appliance, principal)
        once = await claimed(request, principal, status=handler.status_code)
        assert once is not None
        idempotency = self._appliance.idempotency
        claim = Claim(once)
        kept = await counted(self._appliance, idempotency.begin(claim))
        if kept is not None:
            await _tell(send, kept.status, kept.body)
            return
        answer = _Answer(send)
        token = claims.CURRENT.set(claim)
        try:
            await next_app(scope, receive, answer)
        finally:
            claims.CURRENT.reset(token)
            # Where the database cannot be written, the claim runs out by itself.
            with suppress(ApplianceError):
                if not answer.success:
                    await idempotency.give_up(claim)
                elif not claim.kept:
                    body = None if handler.opt.get(TOLD_ONCE) else answer.text
                    await idempotency.finish(claim, answer.status, body)


async def claimed(
    request: Request[Any, Any, Any], principal: Principal, *, status: int = 200
) -> Once | None:
    """What a request's key says; None where it has none.

    :raises InvalidInput: the key is empty, too long or has odd characters.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise InvalidInput(
            f"{HEADER} has 1 to {KEY_MAX_CHARS} printable ASCII characters and no blanks."
        )
    address = request.scope["raw_path"] + b"?" + request.scope["query_string"]
    body = await request.body()
    return claims.once(principal.owner, key, request.method.encode(), address, body, status=status)


async def counted(appliance: Appliance, begun: Awaitable[T]) -> T:
    """Await a claim and count what came of it."""
    counts = appliance.metrics.idempotency
    try:
        found = await begun
    except UnderWay:
        counts.labels("under_way").inc()
        raise
    except KeyReused:
        counts.labels("reused").inc()
        raise
    except Conflict:
        counts.labels("told_once").inc()
        raise
    told = found is not None and getattr(found, "reply", found) is not None
    counts.labels("replayed" if told else "new").inc()
    return found


class _Answer:
    """Sends an answer on and remembers it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._parts: list[bytes] = []
        self._chars = 0
        self._json = False
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            kind = Headers.from_scope({"headers": message["headers"]}).get("content-type", "")  # type: ignore[arg-type]
            self._json = kind.startswith("application/json")
        elif message["type"] == "http.response.body":
            self._chars += len(message["body"])
            if self._chars <= CONTENT_CHARS:
                self._parts.append(message["body"])
        await self._send(message)

    @property
    def success(self) -> bool:
        """Whether the request was carried out."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str | None:
        """The answer, if it can be told again."""
        if (self._chars and not self._json) or self._chars > CONTENT_CHARS:
            return None
        return b"".join(self._parts).decode()


async def _tell(send: Send, status: int, body: str) -> None:
    content = body.encode()
    headers = [(REPLAYED.lower().encode(), b"true")]
    if content:
        headers.append((b"content-type", b"application/json"))
    if status != 204:
        headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": False})

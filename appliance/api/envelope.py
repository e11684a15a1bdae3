"""What surrounds every request, whatever becomes of it: its id, its log line, its place in the
metrics."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any, Final

import structlog
from litestar.datastructures import Headers, MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from appliance.logs import REQUEST_ID, bind_request, get_logger
from appliance.metrics import Metrics

log = get_logger()

UNROUTED: Final = "none"
"""The route of addresses that there are none of: as a label they would have no end."""
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
QUIET: Final = ("/api/v1/health", "/api/v1/ready", "/metrics")
"""Asked every few seconds for ever: logged at debug level."""


class Envelope:
    """Wraps the routed application, outside of everything that may refuse a request.

    :param methods: by route; Litestar itself tells only the methods of one of a route's handlers.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, methods: Mapping[str, Collection[str]]
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        structlog.contextvars.clear_contextvars()
        request_id = bind_request(Headers.from_scope(scope).get(REQUEST_ID))
        status = 0

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableScopeHeaders.from_message(message)
                headers[REQUEST_ID] = request_id
                known = self._methods.get(scope.get("path_template", ""))
                if known and scope["method"] == "OPTIONS":
                    headers["Allow"] = ", ".join(sorted(known))
            await send(message)

        self._metrics.requests_under_way.inc()
        try:
            await self._app(scope, receive, tell)
        finally:
            self._metrics.requests_under_way.dec()
            self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Any, status: int, seconds: float) -> None:
        route = scope.get("path_template") or UNROUTED
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.requests.labels(method, route, str(status or "none")).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        # The template, not the address: an address holds ids, and searches a customer's words.
        write = log.debug if route in QUIET else log.info
        write("request", method=method, route=route, status=status, seconds=round(seconds, 4))

"""What a request has to pass before it is looked at: room, a disk with space, and its own arrival
in time."""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPReceiveMessage, Receive, Scope, Send

from appliance.bootstrap import Appliance
from appliance.errors import InvalidInput, RateLimited, ReadOnly, TooSlow
from appliance.turns import Turns

REQUESTS_MAX: Final = 512
"""Requests under way in this process; the bound behind all other bounds."""
STORING: Final = frozenset(("POST", "PUT", "PATCH"))
"""Methods that a read-only appliance refuses. Deleting goes on: it is one way to make space."""
UNGATED: Final = "ungated"
"""Routes with this option are always answered: probes have to be."""
READS: Final = "reads"
"""Routes with this option store nothing, whatever their method says."""
SMALL: Final = "small"
"""Routes with this option are taken on a full disk, too: who may do what has to stay in hand, and
costs a few hundred bytes of the reserve."""


class Gate(ASGIMiddleware):
    """Refuses what cannot be taken now, before anything is done about it."""

    scopes = (ScopeType.HTTP,)
    exclude_opt_key = UNGATED

    def __init__(self, appliance: Appliance) -> None:
        self._appliance = appliance
        self._seconds = appliance.settings.request_seconds
        self._under_way = 0
        self._turns = Turns()

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass a request on.

        :raises RateLimited: there is no room.
        :raises ReadOnly: it would be stored, and the disk is nearly full.
        """
        metrics = self._appliance.metrics
        if self._under_way >= REQUESTS_MAX:
            metrics.limited.labels("requests").inc()
            raise RateLimited("As many requests as this process answers at once are under way.")
        opt: dict[str, Any] = scope["route_handler"].opt
        storing = scope.get("method") in STORING and not (opt.get(READS) or opt.get(SMALL))
        if storing and self._appliance.monitor.read_only:
            metrics.limited.labels("disk").inc()
            raise ReadOnly
        self._under_way += 1
        try:
            await self._turns.take()
            await next_app(scope, self._in_time(receive), send)
        finally:
            self._under_way -= 1

    def _in_time(self, receive: Receive) -> Receive:
        """Receives the body as long as it comes in time; what comes after it, whenever it comes."""
        deadline = asyncio.get_running_loop().time() + self._seconds
        whole = False

        async def received() -> HTTPReceiveMessage:
            nonlocal whole
            if whole:
                return await receive()  # type: ignore[return-value]
            try:
                async with asyncio.timeout_at(deadline):
                    message: Any = await receive()
            except TimeoutError:
                self._appliance.metrics.limited.labels("arrival").inc()
                raise TooSlow from None
            if message["type"] == "http.disconnect":
                raise InvalidInput("The client left before its request was whole.")
            whole = not message.get("more_body", False)
            return cast("HTTPReceiveMessage", message)

        return received

"""POST /query and /query/stream: the customer's way in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from litestar import Controller, Request, Response, post
from litestar.params import JSONBody
from litestar.response import ServerSentEvent, ServerSentEventMessage

from appliance.api.auth import Caller, Desk
from appliance.api.gate import READS
from appliance.api.idempotency import OWN, REPLAYED, claimed, counted
from appliance.api.problems import documented, told
from appliance.api.schemas import QueryRequest
from appliance.bootstrap import Appliance
from appliance.services.access import Principal
from appliance.services.answer_query import Accepted, Ask
from appliance.services.query_result import QueryResult

PING_SECONDS = 15.0
"""A comment this often keeps proxies and the page from taking a slow model for a dead
connection."""


class QueryController(Controller):
    """Questions and their answers."""

    path = "/query"
    tags = ("Queries",)
    opt = {OWN: True}  # noqa: RUF012 - as the framework declares it

    @post(status_code=200, responses=documented(400, 401, 403, 404, 413, 429, 503))
    async def query(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[QueryRequest],
        principal: Caller,
        appliance: Desk,
    ) -> Response[QueryResult]:
        """Answer a message. The answer is stored also when the caller leaves before it is there."""
        left = asyncio.Event()
        accepted = await _accept(request, data, principal, appliance)
        watch = asyncio.create_task(_watch(request, left))
        try:
            result = await asyncio.shield(
                appliance.ready.answer_query.start(accepted, _unheard, left)
            )
        finally:
            watch.cancel()
        return Response(result, headers=_replayed(accepted))

    @post(
        "/rehearse",
        status_code=200,
        opt={READS: True},
        responses=documented(400, 401, 403, 404, 413, 429, 503),
    )
    async def rehearse(
        self,
        data: JSONBody[QueryRequest],
        principal: Caller,
        appliance: Desk,
    ) -> QueryResult:
        """Answer a message as a customer's is answered, and keep nothing of it: how an upgrade, or
        an administrator, finds out whether the desk works. No conversation, no event, no figure."""
        ask = Ask(data.user_id, data.message, data.conversation_id)
        return await appliance.ready.answer_query.rehearse(ask, principal)

    @post(
        "/stream",
        status_code=200,
        media_type="text/event-stream",
        responses=documented(400, 401, 403, 404, 413, 429, 503),
    )
    async def stream(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[QueryRequest],
        principal: Caller,
        appliance: Desk,
    ) -> ServerSentEvent:
        """Answer a message as events: ``analysis``, ``passages``, ``token`` (many), ``answer``; or
        ``error``.

        Each token's sentence has passed grounding; ``answer.response`` is their concatenation.
        """
        accepted = await _accept(request, data, principal, appliance)
        queue: asyncio.Queue[tuple[str, Any] | None] = asyncio.Queue()
        left = asyncio.Event()

        async def emit(event: str, data: dict[str, Any]) -> None:
            if event == "analysis":
                ids = {
                    "conversation_id": accepted.conversation.id,
                    "message_id": accepted.message.id,
                }
                data = {**ids, **data}
            queue.put_nowait((event, data))

        # Started here, not in the generator: a client that leaves before the first event is still
        # answered.
        task = appliance.ready.answer_query.start(accepted, emit, left)
        task.add_done_callback(lambda _: queue.put_nowait(None))
        return ServerSentEvent(_events(queue, task, left), headers=_replayed(accepted))


async def _accept(
    request: Request[Any, Any, Any],
    data: JSONBody[QueryRequest],
    principal: Principal,
    appliance: Appliance,
) -> Accepted:
    desk = appliance.ready.answer_query
    ask = Ask(data.user_id, data.message, data.conversation_id)
    once = await claimed(request, principal)
    if once is None:
        return await desk.accept(ask, principal)
    return await counted(appliance, desk.accept(ask, principal, once))


def _replayed(accepted: Accepted) -> dict[str, str]:
    return {REPLAYED: "true"} if accepted.reply is not None else {}


async def _unheard(event: str, data: dict[str, Any]) -> None:
    """The emit of a caller that waits for the whole answer."""


async def _watch(request: Request[Any, Any, Any], left: asyncio.Event) -> None:
    """Set ``left`` when the client disconnects; servers do not cancel an ordinary handler."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    left.set()


async def _events(
    queue: asyncio.Queue[tuple[str, Any] | None],
    task: asyncio.Task[QueryResult],
    left: asyncio.Event,
) -> AsyncGenerator[ServerSentEventMessage, None]:
    try:
        while True:
            try:
                item = await asyncio.wait_for(queue.get(), PING_SECONDS)
            except TimeoutError:
                yield ServerSentEventMessage(comment="ping", data=None)
                continue
            if item is None:
                break
            yield _message(*item)
        error = task.exception()
        if error is None:
            yield _message("answer", task.result())
        else:
            yield _message("error", told(error)[0])
    finally:
        left.set()


def _message(event: str, data: Any) -> ServerSentEventMessage:
    return ServerSentEventMessage(event=event, data=msgspec.json.encode(data).decode())

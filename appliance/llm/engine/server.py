"""The engine's HTTP surface on its Unix socket: completions, models, health."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Litestar, Request, get, post
from litestar.exceptions import HTTPException
from litestar.response import Response, Stream

from appliance.errors import NotReady, RateLimited
from appliance.llm.engine import schemas
from appliance.llm.engine.constraints import Choices, ConstraintError, Grammar
from appliance.llm.engine.scheduler import Generator, Scheduler, Ticket
from appliance.llm.engine.schemas import ChatRequest, RequestError, StreamOptions
from appliance.llm.engine.work import Delta, Failed, Finished, Work
from appliance.llm.interface import ChatMessage
from appliance.logs import REQUEST_ID, bind_request

Connection = Request[Any, Any, Any]
Answer = Response[bytes]

_INVALID = "invalid_request_error"
_UNAVAILABLE = "service_unavailable"


@dataclass(frozen=True, slots=True)
class _Desk:
    """What the handlers need; lies in the application's state."""

    scheduler: Scheduler
    model: str
    timeout: float


def create_app(scheduler: Scheduler, *, model: str, max_body: int, timeout: float) -> Litestar:
    """The application.

    :param max_body: the largest request, in bytes.
    :param timeout: the longest a request may take, waiting included, in seconds.
    """
    app = Litestar(
        [chat_completions, models, health],
        openapi_config=None,
        request_max_body_size=max_body,
        exception_handlers={
            RequestError: _bad_request,
            NotReady: _unavailable,
            RateLimited: _full,
            HTTPException: _http_error,
        },
        logging_config=None,
    )
    app.state.desk = _Desk(scheduler, model, timeout)
    return app


@get("/health")
async def health(request: Connection) -> Answer:
    """Always answers at once: 200 when a completion would be accepted, else 503 with the reason."""
    scheduler = _desk(request).scheduler
    status = scheduler.status
    running, waiting = scheduler.under_way
    body = {
        "status": status.state,
        "model": status.model,
        "sha256": status.sha256,
        "file_type": status.file_type,
        "detail": status.detail,
        "running": running,
        "waiting": waiting,
        "pid": os.getpid(),
        "capacity": status.capacity,
        "speed": scheduler.pace,
    }
    return _json(body, status=200 if status.state == "ok" else 503)


@get("/v1/models")
async def models(request: Connection) -> Answer:
    """The one model this engine serves."""
    desk = _desk(request)
    model: dict[str, Any] = {
        "id": desk.model,
        "object": "model",
        "created": 0,
        "owned_by": "appliance",
    }
    if desk.scheduler.status.state == "ok":
        model["max_model_len"] = desk.scheduler.ready().context
    return _json({"object": "list", "data": [model]})


@post("/v1/chat/completions", status_code=200)
async def chat_completions(request: Connection) -> Answer | Stream:
    """Complete a chat, whole or as server-sent events."""
    asked = schemas.parse(await request.body())
    desk = _desk(request)
    if asked.model not in (None, desk.model):
        raise RequestError(
            f"The model {asked.model!r} is not served here; {desk.model!r} is.",
            param="model",
            code="model_not_found",
            status=404,
        )
    ticket = await _submit(desk, asked, bind_request(request.headers.get(REQUEST_ID)))
    identity = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": desk.model,
    }
    if asked.stream:
        return Stream(
            _stream(ticket, identity, options=asked.usage),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )
    return await _whole(request, ticket, identity)


async def _submit(desk: _Desk, asked: ChatRequest, request_id: str) -> Ticket:
    deadline = time.monotonic() + desk.timeout
    generator = desk.scheduler.ready()
    messages = [ChatMessage(message.role, message.content) for message in asked.messages]
    # In a thread: the largest bodies take up to a second, and /health must not wait.
    prompt = await asyncio.to_thread(generator.encode, messages)
    constraint = await _constraint(generator, asked)
    room = generator.context - len(prompt)
    limit = room if asked.limit is None else asked.limit
    if isinstance(constraint, Choices):
        limit = constraint.longest  # a choice is never cut off, and none of it is written
    if limit > room or room < 1:
        raise RequestError(
            f"The context holds {generator.context} tokens; the prompt has {len(prompt)} and "
            f"{max(limit, 1)} are to be generated.",
            param="messages" if room < 1 else "max_tokens",
            code="context_length_exceeded",
        )
    work = Work(prompt, limit, asked.stops, asked.sampling, constraint, deadline, request_id)
    return desk.scheduler.submit(work)


async def _constraint(generator: Generator, asked: ChatRequest) -> Choices | Grammar | None:
    structured = asked.structured
    if structured is None:
        return None
    try:
        return await asyncio.to_thread(generator.constraint, structured)
    except ConstraintError as error:
        raise RequestError(str(error), param=f"structured_outputs.{structured.kind}") from error


async def _whole(request: Connection, ticket: Ticket, identity: dict[str, Any]) -> Answer:
    # No server cancels an ordinary handler when its client leaves, so the leaving is raced here.
    answer = asyncio.ensure_future(_collect(ticket))
    left = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({answer, left}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            return _json(schemas.error("The client left.", _INVALID), status=499)
        text, ended = answer.result()
    finally:
        ticket.cancel()
        answer.cancel()
        left.cancel()
    if isinstance(ended, Failed):
        status = 504 if ended.code == "deadline_exceeded" else 503
        return _json(schemas.error(ended.detail, _UNAVAILABLE, code=ended.code), status=status)
    return _json(schemas.completion(identity, text, ended))


async def _collect(ticket: Ticket) -> tuple[str, Finished | Failed]:
    pieces = []
    while isinstance(event := await ticket.next(), Delta):
        pieces.append(event.text)
    return "".join(pieces), event


async def _left(request: Connection) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stream(
    ticket: Ticket, identity: dict[str, Any], *, options: StreamOptions
) -> AsyncGenerator[bytes, None]:
    try:
        yield _event(schemas.chunk(identity, {"role": "assistant", "content": ""}))
        while isinstance(event := await ticket.next(), Delta):
            piece = schemas.chunk(identity, {"content": event.text})
            if options.continuous_usage_stats and event.counts is not None:
                piece["usage"] = schemas.usage(event.counts)
            yield _event(piece)
        if isinstance(event, Failed):
            # The status line is gone; a stream without its [DONE] is a broken one for every client.
            yield _event(schemas.error(event.detail, _UNAVAILABLE, code=event.code))
            return
        yield _event(schemas.chunk(identity, {}, event.reason))
        if options.include_usage:
            yield _event(schemas.usage_chunk(identity, event))
        yield b"data: [DONE]\n\n"
    finally:
        ticket.cancel()


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(document) + b"\n\n"


def _desk(request: Connection) -> _Desk:
    desk: _Desk = request.app.state.desk
    return desk


def _json(
    document: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None
) -> Answer:
    return Response(
        msgspec.json.encode(document),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )


def _bad_request(_request: Connection, error: RequestError) -> Answer:
    body = schemas.error(error.message, _INVALID, code=error.code, param=error.param)
    return _json(body, status=error.status)


def _unavailable(_request: Connection, error: NotReady) -> Answer:
    body = schemas.error(error.detail, _UNAVAILABLE, code="not_ready")
    return _json(body, status=503, headers={"retry-after": str(error.retry_after)})


def _full(_request: Connection, error: RateLimited) -> Answer:
    body = schemas.error(error.detail, "rate_limit_exceeded", code="queue_full")
    return _json(body, status=429, headers={"retry-after": str(error.retry_after)})


def _http_error(_request: Connection, error: HTTPException) -> Answer:
    body = schemas.error(error.detail or "The request was refused.", _INVALID)
    return _json(body, status=error.status_code)

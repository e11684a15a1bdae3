"""What comes back over the OpenAI protocol, read with patience: servers differ in what they add."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from typing import Final, Literal

import msgspec

from appliance.domain.answer import TokenUsage
from appliance.errors import ModelUnavailable
from appliance.llm.interface import Chunk, Completion, ModelHealth

_LONGEST_LINE: Final = 1 << 20


class Fault(msgspec.Struct):
    """An error object. ``message`` may quote the request, and with it the customer."""

    message: str = ""
    type: str | None = None
    code: str | int | None = None
    param: str | None = None

    def __str__(self) -> str:
        return ", ".join(str(part) for part in (self.type, self.code, self.param) if part)


class _CachedTokens(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _CachedTokens | None = None


class _Text(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    """Of a whole completion ``message``, of a piece ``delta``."""

    message: _Text | None = None
    delta: _Text | None = None
    finish_reason: str | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Fault | None = None


class _Health(msgspec.Struct):
    status: str
    model: str | None = None
    sha256: str | None = None
    detail: str | None = None


async def events(blocks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """The data of each server-sent event up to ``[DONE]``.

    Lines end at a line feed only: httpx's own line reader also cuts at separators such as U+2028,
    which JSON may contain as they are.

    :raises ModelUnavailable: a line without end.
    """
    pending = b""
    async for block in blocks:
        *lines, pending = (pending + block).split(b"\n")
        if len(pending) > _LONGEST_LINE:
            raise ModelUnavailable("The model's answer is not a stream of events.")
        for line in lines:
            field, _, data = line.rstrip(b"\r").partition(b":")
            if field != b"data":
                continue  # a comment that keeps the connection alive, an event's name or its end
            data = data.removeprefix(b" ")
            if data == b"[DONE]":
                return
            yield data


def chunk(data: bytes) -> Chunk:
    """One event of a stream; empty when it says nothing of interest.

    :raises ModelUnavailable: not JSON, or the server's word that it cannot go on.
    """
    reply = _decoded(data)
    if reply.error is not None:
        raise ModelUnavailable(f"The model's answer broke off ({reply.error}).")
    usage = _usage(reply.usage)
    if not reply.choices:
        return Chunk(usage=usage)
    choice = reply.choices[0]
    text = (choice.delta.content if choice.delta else None) or ""
    return Chunk(text, _reason(choice.finish_reason) if choice.finish_reason else None, usage)


def completion(data: bytes) -> Completion:
    """A whole completion.

    :raises ModelUnavailable: not one.
    """
    reply = _decoded(data)
    if not reply.choices or reply.choices[0].message is None:
        raise ModelUnavailable("The model's answer has no text.")
    choice = reply.choices[0]
    text = (choice.message.content if choice.message else None) or ""
    return Completion(text, _reason(choice.finish_reason), _usage(reply.usage) or TokenUsage())


def fault(data: bytes) -> Fault:
    """The error in an answer that is one; an empty one if it says nothing readable."""
    try:
        return msgspec.json.decode(data, type=_Reply).error or Fault()
    except msgspec.MsgspecError:
        return Fault()


def health(data: bytes, *, success: bool) -> ModelHealth:
    """What ``/health`` said; a server that says nothing, like vLLM, says it with its status."""
    try:
        said = msgspec.json.decode(data, type=_Health)
    except msgspec.MsgspecError:
        return ModelHealth("ok" if success else "down")
    state: Literal["ok", "loading", "down"] = "loading" if said.status == "loading" else "down"
    if success and said.status == "ok":
        state = "ok"
    return ModelHealth(state, said.model, said.sha256, said.detail or None)


def _decoded(data: bytes) -> _Reply:
    try:
        return msgspec.json.decode(data, type=_Reply)
    except msgspec.MsgspecError as error:
        raise ModelUnavailable("The model's answer is not readable.") from error


def _reason(said: str | None) -> Literal["stop", "length"]:
    return "length" if said == "length" else "stop"


def _usage(said: _Usage | None) -> TokenUsage | None:
    if said is None:
        return None
    details = said.prompt_tokens_details
    cached = (details.cached_tokens if details else None) or 0
    return TokenUsage(said.prompt_tokens, cached, said.completion_tokens)

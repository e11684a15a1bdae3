"""What comes back over the OpenAI protocol, read with patience: servers differ in what they add."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from typing import Final, Literal

import msgspec

from appliance.domain.answer import TokenUsage
from appliance.errors import ModelUnavailable
from appliance.llm.interface import Chunk, Completion, ModelHealth

_LONGEST_LINE: Final = 1 << 20
_UNDECIDED: Final = 0.01
"""How much of the probability may lie on first tokens that several choices begin with."""


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


class _Alternative(msgspec.Struct):
    token: str
    logprob: float


class _Token(msgspec.Struct):
    top_logprobs: list[_Alternative] = []


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Choice(msgspec.Struct):
    """Of a completion ``message``, of a piece ``delta``; ``choice_scores`` is our engine's."""

    message: _Text | None = None
    delta: _Text | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    choice_scores: dict[str, float] | None = None


class _Groq(msgspec.Struct):
    """What Groq adds to the pieces of a stream."""

    usage: _Usage | None = None
    error: str | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Fault | None = None
    model: str | None = None
    x_groq: _Groq | None = None


class _Health(msgspec.Struct):
    status: str
    model: str | None = None
    sha256: str | None = None
    detail: str | None = None
    running: int | None = None
    waiting: int | None = None


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


def chunk(data: bytes, *, remote: bool = False) -> Chunk:
    """One event of a stream; without text, reason and usage when it says nothing of interest.

    :raises ModelUnavailable: not JSON, or the server's word that it cannot go on.
    """
    reply = _decoded(data)
    if reply.error is not None:
        raise ModelUnavailable(f"The model's answer broke off ({reply.error}).")
    usage = _usage(reply.usage)
    if reply.x_groq is not None:
        if reply.x_groq.error:
            raise ModelUnavailable("The model's answer broke off.")
        usage = usage or _usage(reply.x_groq.usage)
    if not reply.choices:
        return Chunk(usage=usage, model=reply.model, remote=remote)
    choice = reply.choices[0]
    text = (choice.delta.content if choice.delta else None) or ""
    reason = _reason(choice.finish_reason) if choice.finish_reason else None
    return Chunk(text, reason, usage, reply.model, remote)


def completion(data: bytes, *, remote: bool = False, choices: Sequence[str] = ()) -> Completion:
    """A whole completion, with the scores of ``choices`` where the server tells enough.

    :raises ModelUnavailable: not one.
    """
    reply = _decoded(data)
    if not reply.choices or reply.choices[0].message is None:
        raise ModelUnavailable("The model's answer has no text.")
    choice = reply.choices[0]
    return Completion(
        text=(choice.message.content if choice.message else None) or "",
        finish_reason=_reason(choice.finish_reason),
        usage=_usage(reply.usage) or TokenUsage(),
        choice_scores=_scores(choice, choices) if choices else None,
        model=reply.model,
        remote=remote,
    )


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
    return ModelHealth(
        state, said.model, said.sha256, said.detail or None, said.running, said.waiting
    )


def _decoded(data: bytes) -> _Reply:
    try:
        return msgspec.json.decode(data, type=_Reply)
    except msgspec.MsgspecError as error:
        raise ModelUnavailable("The model's answer is not readable.") from error


def _reason(said: str | None) -> Literal["stop", "length"]:
    """:raises ModelUnavailable: the server gave up, as one that is being stopped: half an answer
    must not pass for a whole one."""
    if said in ("abort", "error"):
        raise ModelUnavailable(f"The model's answer broke off ({said}).")
    return "length" if said == "length" else "stop"


def _usage(said: _Usage | None) -> TokenUsage | None:
    if said is None:
        return None
    details = said.prompt_tokens_details
    cached = (details.cached_tokens if details else None) or 0
    return TokenUsage(said.prompt_tokens, cached, said.completion_tokens)


def _scores(reply: _Choice, choices: Sequence[str]) -> dict[str, float] | None:
    """The log probability of each choice among them, or None where it cannot be told."""
    if reply.choice_scores is not None:
        told = reply.choice_scores
        return _normalised(told) if told.keys() == set(choices) else None
    tokens = reply.logprobs.content if reply.logprobs else None
    if not tokens:
        return None
    # A first token decides for the one choice that begins with it; what lies on a token that
    # several begin with, like the "Ne" of Negative and Neutral, would need the second token.
    chances = dict.fromkeys(choices, 0.0)
    undecided = 0.0
    for alternative in tokens[0].top_logprobs:
        start = alternative.token.lstrip()
        fitting = [choice for choice in choices if start and choice.startswith(start)]
        if len(fitting) == 1:
            chances[fitting[0]] += math.exp(alternative.logprob)
        elif fitting:
            undecided += math.exp(alternative.logprob)
    total = sum(chances.values())
    if not all(chances.values()) or undecided > _UNDECIDED * (total + undecided):
        return None
    return {choice: math.log(chance / total) for choice, chance in chances.items()}


def _normalised(scores: dict[str, float]) -> dict[str, float] | None:
    """The same with exponentials that add up to 1 exactly."""
    if not all(math.isfinite(score) for score in scores.values()):
        return None
    highest = max(scores.values())
    total = highest + math.log(sum(math.exp(score - highest) for score in scores.values()))
    return {choice: score - total for choice, score in scores.items()}

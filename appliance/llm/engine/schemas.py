"""The chat-completions protocol as it goes over the socket: what is accepted, and what is answered.

OpenAI's shapes in vLLM's dialect, and strict: a field this engine does not know is refused, because
an option that is ignored in silence is a wrong answer nobody can explain.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

from appliance.llm.engine.work import Counts, Finished, Sampling
from appliance.llm.interface import Structured

_MAX_MESSAGES = 256
_MAX_STOPS = 16
_MAX_STOP_CHARS = 256
_MAX_CHOICE_CHARS = 256
_MAX_PATTERN_CHARS = 16_384

Positive = Annotated[int, msgspec.Meta(ge=1)]
Choice = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_CHOICE_CHARS)]
Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_PATTERN_CHARS)]
Stop = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_STOP_CHARS)]


class RequestError(Exception):
    """The request itself is wrong; ``param`` is the field, where one is to blame."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str = "invalid_value",
        status: int = 400,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message; content is text only."""

    role: Literal["system", "user", "assistant"]
    content: str


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``include_usage`` asks for a last chunk with the token counts, ``continuous_usage_stats`` for
    the counts so far on every chunk: a client that stops early knows no other way."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class StructuredOutputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the completion has to be: exactly one of these. The names are vLLM's."""

    choice: Annotated[tuple[Choice, ...], msgspec.Meta(min_length=1)] | None = None
    regex: Pattern | None = None
    json: dict[str, Any] | None = None
    grammar: Pattern | None = None


class ChatRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of a completion request. Without a model's name whatever is served answers."""

    messages: Annotated[tuple[Message, ...], msgspec.Meta(min_length=1, max_length=_MAX_MESSAGES)]
    model: str | None = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: Stop | Annotated[tuple[Stop, ...], msgspec.Meta(max_length=_MAX_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    structured_outputs: StructuredOutputs | None = None

    @property
    def structured(self) -> Structured | None:
        """What the completion has to be, where that was said."""
        asked = self.structured_outputs
        if asked is None:
            return None
        return Structured(asked.choice, asked.regex, asked.json, asked.grammar)

    @property
    def limit(self) -> int | None:
        """Most tokens to generate, where a limit was given."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings, none, one or several."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else self.stop

    @property
    def sampling(self) -> Sampling:
        """How to choose tokens; the defaults are the protocol's, not the desk's."""
        return Sampling(
            1.0 if self.temperature is None else self.temperature,
            1.0 if self.top_p is None else self.top_p,
            self.seed,
        )

    @property
    def usage(self) -> StreamOptions:
        """Which token counts a stream carries."""
        return self.stream_options or StreamOptions()


_decoder = msgspec.json.Decoder(ChatRequest)


def parse(body: bytes) -> ChatRequest:
    """Read a request.

    :raises RequestError: with the field that is wrong.
    """
    try:
        # The decoder checks UTF-8 in the strings it keeps; this covers the rest of the body.
        body.decode("utf-8")
        request = _decoder.decode(body)
    except UnicodeDecodeError as error:
        raise RequestError("The body is not valid UTF-8.", code="invalid_body") from error
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"The body is not valid JSON: {error}.", code="invalid_body") from error
    both = (request.max_tokens, request.max_completion_tokens)
    if None not in both and len(set(both)) == 2:
        raise RequestError("max_tokens and max_completion_tokens contradict.", param="max_tokens")
    if request.stream_options is not None and not request.stream:
        raise RequestError("stream_options needs stream.", param="stream_options")
    asked = request.structured_outputs
    if (
        asked is not None
        and sum(getattr(asked, f) is not None for f in asked.__struct_fields__) != 1
    ):
        raise RequestError(
            "structured_outputs takes exactly one of choice, regex, json and grammar.",
            param="structured_outputs",
        )
    return request


def _explained(message: str) -> RequestError:
    named = re.search(r"field `([^`]*)`", message)
    where = re.search(r" - at `\$\.?([^`]*)`$", message)
    path = where.group(1) if where else ""
    field = named.group(1) if named else ""
    unknown = "unknown field" in message
    return RequestError(
        f"{message}.",
        param=".".join(part for part in (path, field) if part) or None,
        code="unknown_parameter" if unknown else "invalid_value",
    )


def completion(identity: dict[str, Any], text: str, finished: Finished) -> dict[str, Any]:
    """A whole completion. ``identity`` is what answers to one request share: id, created, model."""
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": finished.reason,
    }
    if finished.choice_scores is not None:
        choice["choice_scores"] = finished.choice_scores
    return {**identity, "object": "chat.completion", "choices": [choice], "usage": usage(finished)}


def chunk(
    identity: dict[str, Any], delta: dict[str, str], finish_reason: str | None = None
) -> dict[str, Any]:
    """A piece of a streamed completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {**identity, "object": "chat.completion.chunk", "choices": [choice]}


def usage_chunk(identity: dict[str, Any], finished: Finished) -> dict[str, Any]:
    """The last piece of a stream that asked for its token counts."""
    return {
        **identity,
        "object": "chat.completion.chunk",
        "choices": [],
        "usage": usage(finished),
    }


def usage(finished: Finished | Counts) -> dict[str, Any]:
    """Token counts. The token that ended the answer counts as generated, as vLLM counts it."""
    return {
        "prompt_tokens": finished.prompt,
        "completion_tokens": finished.generated,
        "total_tokens": finished.prompt + finished.generated,
        "prompt_tokens_details": {"cached_tokens": finished.cached},
    }


def error(
    message: str, kind: str, *, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """An error as OpenAI's clients expect it."""
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}

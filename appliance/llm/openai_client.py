"""A chat model behind the OpenAI protocol: on the engine's Unix socket, or by URL.

Nothing is retried and no proxy is asked. Each request opens its own connection: on a Unix socket
that costs a fraction of a millisecond, and a request made after the link was switched to another
engine goes there, where a kept connection would hold on to the old one.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from appliance.errors import ModelBusy, ModelRejected, ModelUnavailable
from appliance.llm import openai_wire as wire
from appliance.llm.capabilities import ENGINE, Dialect
from appliance.llm.interface import ChatMessage, Chunk, Completion, ModelHealth, Structured
from appliance.llm.templates import Template, neutralised
from appliance.logs import get_logger

log = get_logger()

CONNECT_SECONDS: Final = 2.0
HEALTH_SECONDS: Final = 2.0
REASONING_TOKENS: Final = 1_024
_FULL: Final = 429
_TRY_LATER: Final = (408, 425, 429, 498)
"""Statuses below 500 that pass by themselves; 498 is Groq's word for being full."""


class OpenAIChatModel:
    """Keeps :class:`~appliance.llm.interface.ChatModel`.

    :param base_url: the server's root, without ``/v1``.
    :param socket: connect to this Unix socket instead of the URL's host; may be a link that is
        switched.
    :param model: the name to ask for; None leaves it to a server that serves one model.
    :param timeout: the longest one call may take, in seconds, from connecting to the last token.
    :param capabilities: what the server can do and how it wants to be asked.
    :param headers: read anew for every completion: more headers to send, such as a key.
    :param heard: told the status and headers of whatever answers a completion.
    :param reasoning: how hard a model that thinks first may think, in the server's words.
    :param breaks: the template whose markers are broken in every message, for a server that takes
        them for what they say wherever they stand.
    """

    def __init__(
        self,
        base_url: str = "http://engine",
        *,
        socket: Path | None = None,
        model: str | None = None,
        timeout: float = 30.0,
        capabilities: Dialect = ENGINE,
        headers: Callable[[], Mapping[str, str]] = dict,
        heard: Callable[[int, Mapping[str, str]], None] | None = None,
        reasoning: str | None = None,
        breaks: Template | None = None,
    ) -> None:
        self.capabilities = capabilities
        self._headers = headers
        self._heard = heard
        self._reasoning = reasoning
        self._breaks = breaks
        self._model = model
        self._timeout = timeout
        transport = httpx.AsyncHTTPTransport(
            uds=None if socket is None else str(socket),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            retries=0,
            trust_env=False,
        )
        self._client = httpx.AsyncClient(
            base_url=base_url,
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        )

    async def stream(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, stop: Sequence[str] = ()
    ) -> AsyncGenerator[Chunk, None]:
        """Yield the completion piece by piece; closing the generator closes the connection."""
        body = self._body(messages, max_tokens, stop)
        options = {"include_usage": True}
        if self.capabilities.running_counts:
            options["continuous_usage_stats"] = True
        body |= {"stream": True, "stream_options": options}
        # One deadline for all steps instead of a timeout around them: between two steps the
        # caller's own code runs, and a timeout there would be raised in the wrong place.
        deadline = asyncio.get_running_loop().time() + self._timeout
        async with _within(deadline):
            response = await self._send(body, stream=True)
        finished = False
        try:
            async with _within(deadline):
                await _check(response)
            async with aclosing(wire.events(response.aiter_bytes())) as events:
                while True:
                    async with _within(deadline):
                        data = await anext(events, None)
                    if data is None:
                        break
                    chunk = wire.chunk(data, remote=self.capabilities.remote)
                    finished = finished or chunk.finish_reason is not None
                    if chunk.text or chunk.finish_reason or chunk.usage:
                        yield chunk
        finally:
            await response.aclose()
        if not finished:
            raise ModelUnavailable("The model's answer broke off.")

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        structured: Structured | None = None,
    ) -> Completion:
        """Return the completion in one piece; cancelling the call closes the connection.

        :raises ModelRejected: also for a constraint the server does not know, before it is asked.
        """
        body = self._body(messages, max_tokens, stop)
        if structured is not None:
            body |= self.capabilities.fields(structured)
        async with _within(asyncio.get_running_loop().time() + self._timeout):
            response = await self._send(body)
            await _check(response)
        return wire.completion(
            response.content,
            remote=self.capabilities.remote,
            choices=(structured and structured.choice) or (),
        )

    async def health(self) -> ModelHealth:
        """Never raises: a backend that does not answer is ``down``."""
        try:
            async with asyncio.timeout(HEALTH_SECONDS):
                response = await self._client.get("/health")
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            return ModelHealth("down", self._model, detail=_named(error))
        seen = wire.health(response.content, success=response.is_success)
        # vLLM does not say what it serves; what it was asked for is what it would refuse otherwise.
        return seen if seen.model else replace(seen, model=self._model)

    async def aclose(self) -> None:
        """Release connections."""
        await self._client.aclose()

    def _body(
        self, messages: Sequence[ChatMessage], max_tokens: int, stop: Sequence[str]
    ) -> dict[str, Any]:
        body: dict[str, Any] = {
            "messages": [
                {"role": message.role, "content": self._content(message)} for message in messages
            ],
            self.capabilities.limit: max_tokens,
            "temperature": 0,
        }
        if self._reasoning is not None:
            # Thoughts count as tokens too: within the words' own limit there would be no words.
            body[self.capabilities.limit] += REASONING_TOKENS
            body |= {"reasoning_effort": self._reasoning, "include_reasoning": False}
        if stop:
            body["stop"] = list(stop)
        if self._model is not None:
            body["model"] = self._model
        return body

    def _content(self, message: ChatMessage) -> str:
        text = _sendable(message.content)
        return text if self._breaks is None else neutralised(text, self._breaks)

    async def _send(self, body: dict[str, Any], *, stream: bool = False) -> httpx.Response:
        request = self._client.build_request(
            "POST",
            "/v1/chat/completions",
            content=msgspec.json.encode(body),
            headers={**self._headers(), "content-type": "application/json"},
        )
        response = await self._client.send(request, stream=stream)
        if self._heard is not None:
            self._heard(response.status_code, response.headers)
        return response


@asynccontextmanager
async def _within(deadline: float) -> AsyncGenerator[None, None]:
    """Whatever keeps an answer from arriving means the same: no model at the moment."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except (httpx.HTTPError, OSError, TimeoutError) as error:
        raise ModelUnavailable(f"The model did not answer: {_named(error)}.") from error


async def _check(response: httpx.Response) -> None:
    """Turn a refusal into the error that says whether falling back is right."""
    if response.is_success:
        return
    fault = wire.fault(await response.aread())
    log.debug("model refused", status=response.status_code, message=fault.message)
    about = f" ({fault})" if str(fault) else ""
    detail = f"The model answered {response.status_code}{about}."
    if response.status_code in _TRY_LATER or response.is_server_error:
        full = response.status_code == _FULL
        raise (ModelBusy if full else ModelUnavailable)(
            detail, retry_after=_seconds(response.headers.get("retry-after"))
        )
    raise ModelRejected(detail)


def _seconds(after: str | None) -> int | None:
    """Whole seconds of ``Retry-After``, where it is a number; some servers send fractions."""
    found = re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", after or "")
    return math.ceil(float(found.group())) if found else None


def _named(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()


def _sendable(text: str) -> str:
    """The text without lone surrogates, which are half a character and cannot be sent."""
    return text.encode("utf-8", "replace").decode()

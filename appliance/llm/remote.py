"""A remote model in front of the local one. Off unless an administrator switches it on.

Before anything leaves, every message is redacted and the call is written to the audit log; a call
that cannot be written is not made. Whatever keeps the remote model from answering (full, slow,
down) is tried again for as long as the call may take, and then the local model answers. A request
that was *refused* is a wrong setting or a defect, and never answered by another model in silence.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, Protocol, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from appliance.domain.answer import TokenUsage
from appliance.domain.redaction import redact
from appliance.errors import ModelRejected, ModelUnavailable, SettingsError
from appliance.llm import remote_access
from appliance.llm.capabilities import GROQ
from appliance.llm.interface import (
    Capabilities,
    ChatMessage,
    ChatModel,
    Chunk,
    Completion,
    ModelHealth,
    Structured,
)
from appliance.llm.openai_client import OpenAIChatModel
from appliance.llm.rate_limits import RateLimits
from appliance.logs import get_logger
from appliance.settings import Settings

T = TypeVar("T")

log = get_logger()

CALL: Final = "remote.call"
RESULT: Final = "remote.result"
"""What the audit log calls a call that is about to be made, and how it ended."""

ATTEMPTS: Final = 3
_ATTEMPT_SHARE: Final = 0.5
"""How much of a call's time one attempt may take to its first word: a silent one leaves room for
another."""
_backoff: Final = wait_exponential_jitter(multiplier=0.25, max=4.0, jitter=0.25)

Outcome = Literal["answered", "unavailable", "rejected", "broke_off", "abandoned"]
"""``unavailable`` was answered by the local model; ``broke_off`` is a stream that ended early,
``abandoned`` one that nobody waited for any more."""


class RemoteRejected(ModelRejected):
    """The remote service refused the request (4xx), or its key cannot be read."""

    code = "remote_rejected"
    title = "The remote model refused the request"
    default_hint = "Check remote.model, remote.reasoning and the key in remote.key_file."


class Note(Protocol):
    """Writes a line of the audit log; any error means that it was not written."""

    async def __call__(self, action: str, target: str, details: Mapping[str, Any]) -> None:
        """``details`` holds names and counts, never a word of a prompt."""
        ...


@dataclass(slots=True)
class _Call:
    """One call: what may be sent, and how long it may take, on the event loop's clock."""

    messages: list[ChatMessage]
    deadline: float
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.monotonic)
    attempts: int = 0


class RemoteModel:
    """Keeps :class:`~appliance.llm.interface.ChatModel`.

    :param remote: the client of the remote service.
    :param local: answers where the remote service does not.
    :param name: the remote model's name, where the service does not say its own.
    :param host: what the audit log calls the service.
    :param timeout: the longest a call may take, attempts and pauses included, in seconds.
    """

    def __init__(
        self,
        remote: OpenAIChatModel,
        local: ChatModel,
        *,
        name: str,
        host: str,
        note: Note,
        limits: RateLimits,
        timeout: float,
    ) -> None:
        self._remote = remote
        self._local = local
        self._name = name
        self._host = host
        self._note = note
        self._limits = limits
        self._timeout = timeout
        self._refusal: str | None = None
        self._writing: set[asyncio.Task[None]] = set()

    @property
    def capabilities(self) -> Capabilities:
        """What both can do, since either may answer."""
        constraints = self._remote.capabilities.constraints & self._local.capabilities.constraints
        return Capabilities(constraints=constraints, choice_scores=False, remote=True)

    async def stream(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, stop: Sequence[str] = ()
    ) -> AsyncGenerator[Chunk, None]:
        """Yield a completion of one of the two, never of both: what began remotely and broke off
        raises ModelUnavailable."""
        call = await self._begun(messages)
        if call is not None:
            opened = await self._reached(
                call,
                lambda: _opened(
                    self._remote.stream(call.messages, max_tokens=max_tokens, stop=stop)
                ),
            )
            if opened is not None:
                async with aclosing(self._told(call, *opened)) as told:
                    async for chunk in told:
                        yield chunk
                return
        local = self._local.stream(messages, max_tokens=max_tokens, stop=stop)
        async with aclosing(local) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                yield chunk

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        structured: Structured | None = None,
    ) -> Completion:
        """Return the completion of one of the two.

        :raises RemoteRejected: the remote service refused the request.
        """
        if structured is not None and structured.kind not in self.capabilities.constraints:
            raise ModelRejected(f"This backend cannot constrain an answer by {structured.kind}.")
        call = await self._begun(messages)
        if call is not None:
            said = await self._reached(
                call,
                lambda: self._remote.complete(
                    call.messages, max_tokens=max_tokens, stop=stop, structured=structured
                ),
            )
            if said is not None:
                await asyncio.shield(self._ended(call, "answered", tokens=said.usage))
                return replace(said, model=said.model or self._name)
        return await self._local.complete(
            messages, max_tokens=max_tokens, stop=stop, structured=structured
        )

    async def health(self) -> ModelHealth:
        """The local model's, and in ``detail`` what the remote service last refused."""
        local = await self._local.health()
        if self._refusal is None:
            return local
        told = (local.detail, f"remote: {self._refusal} {RemoteRejected.default_hint}")
        return replace(local, detail="; ".join(part for part in told if part))

    async def aclose(self) -> None:
        """Write what is still to be written, then release connections."""
        await asyncio.gather(*self._writing, return_exceptions=True)
        await self._remote.aclose()
        await self._local.aclose()

    async def _begun(self, messages: Sequence[ChatMessage]) -> _Call | None:
        """A call that may be made: redacted, and written down. None leaves it to the local
        model."""
        closed = self._limits.seconds_closed
        if closed > 0:
            log.info("remote_skipped", reason="rate limit", seconds=round(closed, 1))
            return None
        redacted = [redact(message.content) for message in messages]
        call = _Call(
            [
                replace(message, content=kept.text)
                for message, kept in zip(messages, redacted, strict=True)
            ],
            asyncio.get_running_loop().time() + self._timeout,
        )
        counts: Counter[str] = Counter()
        for kept in redacted:
            counts.update(kept.counts)
        details = {
            "call": call.id,
            "model": self._name,
            "prompt_chars": sum(len(message.content) for message in call.messages),
            "redactions": dict(counts),
        }
        try:
            await self._note(CALL, self._host, details)
        except Exception as error:
            log.error("remote_call_not_made", reason="no audit", error=repr(error))
            return None
        return call

    async def _reached(self, call: _Call, attempt: Callable[[], Awaitable[T]]) -> T | None:
        """What an attempt brought, or None when the local model has to answer.

        :raises RemoteRejected: the request was refused, or there is no key to send it with.
        """

        async def once() -> T:
            call.attempts += 1
            now = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout_at(
                    min(call.deadline, now + self._timeout * _ATTEMPT_SHARE)
                ):
                    return await attempt()
            except TimeoutError as error:
                raise ModelUnavailable("The remote model took too long.") from error

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            after = getattr(error, "retry_after", None) or 0
            return max(_backoff(state), after, self._limits.seconds_closed)

        def enough(state: RetryCallState) -> bool:
            after_pause = asyncio.get_running_loop().time() + state.upcoming_sleep
            return state.attempt_number >= ATTEMPTS or after_pause >= call.deadline

        trying = AsyncRetrying(
            sleep=asyncio.sleep,
            retry=retry_if_exception_type(ModelUnavailable),
            wait=pause,
            stop=enough,
            reraise=True,
        )
        try:
            return await trying(once)
        except ModelUnavailable as error:
            log.warning(
                "remote_unavailable", host=self._host, attempts=call.attempts, reason=error.detail
            )
            await asyncio.shield(
                self._ended(call, "unavailable", fallback=True, reason=error.detail)
            )
            return None
        except (ModelRejected, SettingsError) as error:
            self._refusal = error.detail
            await asyncio.shield(self._ended(call, "rejected", reason=error.detail))
            raise RemoteRejected(error.detail) from error
        except BaseException:
            self._ended(call, "abandoned")
            raise

    async def _told(
        self, call: _Call, stream: AsyncGenerator[Chunk, None], first: list[Chunk]
    ) -> AsyncGenerator[Chunk, None]:
        """The rest of a stream that has begun, and the line in the audit log when it ends."""
        outcome: Outcome = "abandoned"
        usage: TokenUsage | None = None
        reason: str | None = None
        try:
            async with aclosing(stream):
                async for chunk in _joined(first, stream):
                    usage = chunk.usage or usage
                    if chunk.finish_reason is not None:
                        outcome = "answered"
                    yield chunk if chunk.model else replace(chunk, model=self._name)
        except ModelUnavailable as error:
            outcome, reason = "broke_off", error.detail
            log.warning("remote_broke_off", host=self._host, reason=error.detail)
            raise
        finally:
            writing = self._ended(call, outcome, tokens=usage, reason=reason)
        await asyncio.shield(writing)

    def _ended(
        self,
        call: _Call,
        outcome: Outcome,
        *,
        fallback: bool = False,
        tokens: TokenUsage | None = None,
        reason: str | None = None,
    ) -> asyncio.Task[None]:
        """Write how a call ended, in a task of its own: who gave up waiting does not wait for
        this."""
        if outcome == "answered":
            self._refusal = None
        details = {
            "call": call.id,
            "outcome": outcome,
            "fallback": fallback,
            "attempts": call.attempts,
            "seconds": round(time.monotonic() - call.started, 3),
            "tokens": None if tokens is None else asdict(tokens),
            "reason": reason,
        }
        task = asyncio.create_task(self._write_result(details))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task

    async def _write_result(self, details: Mapping[str, Any]) -> None:
        try:
            await self._note(RESULT, self._host, details)
        except Exception as error:
            # The call itself is on record; how it ended is at least in the log.
            log.error("remote_result_not_audited", error=repr(error), **details)


async def _opened(
    stream: AsyncGenerator[Chunk, None],
) -> tuple[AsyncGenerator[Chunk, None], list[Chunk]]:
    """A stream read up to its first word: until then another attempt may be made."""
    first: list[Chunk] = []
    try:
        async for chunk in stream:
            first.append(chunk)
            if chunk.text or chunk.finish_reason:
                break
    except BaseException:
        await stream.aclose()
        raise
    return stream, first


async def _joined(
    first: list[Chunk], rest: AsyncGenerator[Chunk, None]
) -> AsyncGenerator[Chunk, None]:
    for chunk in first:
        yield chunk
    async for chunk in rest:
        yield chunk


def connect(settings: Settings, local: ChatModel, note: Note) -> RemoteModel:
    """The remote backend of the settings, in front of ``local``. Connects to nothing yet.

    :raises SettingsError: the settings do not admit one.
    """
    access = remote_access.admitted(settings)
    limits = RateLimits()
    client = OpenAIChatModel(
        access.url,
        model=settings.remote_model,
        timeout=settings.remote_timeout,
        capabilities=GROQ,
        headers=access.headers,
        heard=limits.hear,
        reasoning=settings.remote_reasoning or None,
    )
    log.warning("remote_enabled", host=access.host, model=settings.remote_model)
    return RemoteModel(
        client,
        local,
        name=settings.remote_model,
        host=access.host,
        note=note,
        limits=limits,
        timeout=settings.remote_timeout,
    )

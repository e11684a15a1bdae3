"""The deterministic twin of a language model, for tests of whatever stands above one."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final, Literal

from appliance.domain.answer import TokenUsage
from appliance.errors import ModelRejected, ModelUnavailable
from appliance.llm.interface import (
    Capabilities,
    ChatMessage,
    Chunk,
    Completion,
    ModelHealth,
    Structured,
)

_SURE: Final = 0.9
"""The probability of the choice it names; the others share the rest."""


class ScriptedModel:
    """Answers from a list, in order and the last one for ever, or from a function of the messages.

    A word with the white space before it counts as one token. The prompt's words that the previous
    prompt began with count as cached, as in the engine. Held to a form, it gives its reply if that
    is of the form, and else the first and smallest answer that is.

    :param replies: what to say.
    :param fail_after: raise ``ModelUnavailable`` after this many pieces; 0 is before the first.
    :param delay: seconds to wait before each piece.
    :param remembers: of how many of the latest calls ``calls`` keeps the messages; None is of all.
    """

    capabilities = Capabilities(
        constraints=frozenset(("choice", "regex", "json")), choice_scores=True
    )
    name: Final = "scripted"

    def __init__(
        self,
        replies: Sequence[str] | Callable[[Sequence[ChatMessage]], str] = ("All is well.",),
        *,
        fail_after: int | None = None,
        delay: float = 0.0,
        remembers: int | None = None,
    ) -> None:
        self._reply = replies if callable(replies) else _in_order(replies)
        self.fail_after = fail_after
        self.delay = delay
        self._remembers = remembers
        self.calls: list[tuple[ChatMessage, ...]] = []
        """The messages of the calls so far."""
        self._previous: list[str] = []

    def stream(
        self, messages: Sequence[ChatMessage], *, max_tokens: int, stop: Sequence[str] = ()
    ) -> AsyncGenerator[Chunk, None]:
        """Yield the scripted reply word by word."""
        return self._say(messages, max_tokens, stop, None)

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        structured: Structured | None = None,
    ) -> Completion:
        """Return the scripted reply."""
        text = ""
        async for chunk in self._say(messages, max_tokens, stop, structured):
            text += chunk.text
        assert chunk.finish_reason is not None
        assert chunk.usage is not None
        scores = _scores(text, structured.choice) if structured and structured.choice else None
        return Completion(text, chunk.finish_reason, chunk.usage, scores, self.name)

    async def health(self) -> ModelHealth:
        """Down when told to fail at the start, else in order."""
        if self.fail_after == 0:
            return ModelHealth("down", detail="told to fail")
        return ModelHealth("ok", model=self.name, sha256="0" * 64)

    async def aclose(self) -> None:
        """Nothing to release."""

    async def _say(
        self,
        messages: Sequence[ChatMessage],
        max_tokens: int,
        stop: Sequence[str],
        structured: Structured | None,
    ) -> AsyncGenerator[Chunk, None]:
        self.calls.append(tuple(messages))
        if self._remembers is not None:
            del self.calls[: max(0, len(self.calls) - self._remembers)]
        text = self._reply(messages)
        if structured is not None:
            text = _in_form(text, structured)
        text, finish_reason = _cut(text, max_tokens, stop)
        words = _words(text)
        for number, word in enumerate(words):
            await self._before(number)
            yield Chunk(word, model=self.name)
        await self._before(len(words))
        usage = self._usage(messages, len(words))
        yield Chunk(finish_reason=finish_reason, usage=usage, model=self.name)

    async def _before(self, number: int) -> None:
        await asyncio.sleep(self.delay)
        if self.fail_after is not None and number >= self.fail_after:
            raise ModelUnavailable("The scripted model was told to fail.")

    def _usage(self, messages: Sequence[ChatMessage], generated: int) -> TokenUsage:
        prompt = [word for m in messages for word in (f"<{m.role}>", *_words(m.content))]
        pairs = enumerate(zip(prompt, self._previous, strict=False))
        shared = next(
            (at for at, (new, old) in pairs if new != old), min(len(prompt), len(self._previous))
        )
        self._previous = prompt
        # One token is always evaluated, for the scores of the first word.
        return TokenUsage(len(prompt), max(0, min(shared, len(prompt) - 1)), generated)


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+\s*$|\s*\S+|\s+$", text)


def _cut(text: str, max_tokens: int, stop: Sequence[str]) -> tuple[str, Literal["stop", "length"]]:
    words = _words(text)
    shortened = "".join(words[:max_tokens])
    found = [at for at in (shortened.find(end) for end in stop) if at >= 0]
    if found:
        return shortened[: min(found)], "stop"
    return shortened, "length" if len(words) > max_tokens else "stop"


def _in_order(replies: Sequence[str]) -> Callable[[Sequence[ChatMessage]], str]:
    left = list(replies)

    def reply(_messages: Sequence[ChatMessage]) -> str:
        return left.pop(0) if len(left) > 1 else left[0]

    return reply


def _in_form(reply: str, structured: Structured) -> str:
    """The reply where it keeps to the form, else a smallest text that does.

    :raises ModelRejected: a pattern or schema too elaborate for a twin.
    """
    if structured.choice is not None:
        return reply if reply in structured.choice else structured.choice[0]
    if structured.regex is not None:
        texts = (reply, _shortest(_parser.parse(structured.regex)))
        return _found(next((text for text in texts if re.fullmatch(structured.regex, text)), None))
    if structured.json is not None:
        try:
            document = json.loads(reply)
        except ValueError:
            document = None
        fits = _fits(document, structured.json)
        return reply if fits else json.dumps(_smallest(structured.json))
    return _found(None)  # whether a text keeps to a grammar, only an engine can tell


def _shortest(pattern: Any) -> str:
    """A text that a parsed regular expression of the simple kind matches: always the first of
    several, and no more of it than has to be."""
    text = ""
    for operation, value in pattern:
        match str(operation):
            case "LITERAL":
                text += chr(value)
            case "RANGE":
                text += chr(value[0])
            case "IN":
                text += _shortest(value[:1])
            case "BRANCH":
                text += _shortest(value[1][0])
            case "SUBPATTERN":
                text += _shortest(value[-1])
            case "MAX_REPEAT" | "MIN_REPEAT":
                text += _shortest(value[2]) * value[0]
            case "CATEGORY":
                text += "0"
    return text


def _fits(document: object, schema: Mapping[str, Any]) -> bool:
    match schema:
        case {"enum": values}:
            return document in values
        case {"type": "object", "properties": properties}:
            return (
                isinstance(document, dict)
                and document.keys() >= set(schema.get("required", ()))
                and all(_fits(document[name], properties.get(name, {})) for name in document)
            )
        case {"type": "array", "items": items}:
            return isinstance(document, list) and all(_fits(item, items) for item in document)
        case {"type": "boolean"}:
            return isinstance(document, bool)
        case {"type": "integer"}:
            return isinstance(document, int) and not isinstance(document, bool)
    return False


def _smallest(schema: Mapping[str, Any]) -> Any:
    match schema:
        case {"enum": [first, *_]}:
            return first
        case {"type": "object", "properties": properties}:
            return {name: _smallest(inner) for name, inner in properties.items()}
        case {"type": "array", "items": items}:
            return [_smallest(items)] * schema.get("minItems", 0)
        case {"type": "boolean"}:
            return False
        case {"type": "integer"}:
            return schema.get("minimum", 0)
    return _found(None)


def _found(text: str | None) -> str:
    if text is None:
        raise ModelRejected("The scripted model cannot keep to this form.")
    return text


def _scores(choice: str, choices: Sequence[str]) -> dict[str, float]:
    if len(choices) == 1:
        return {choice: 0.0}
    rest = math.log((1 - _SURE) / (len(choices) - 1))
    return {other: math.log(_SURE) if other == choice else rest for other in choices}

"""The two questions the desk puts to a model in a form that needs no free text: which of these, and
which of these numbers. Asked in whatever form the backend understands, answered by code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from appliance.domain.answer import TokenUsage
from appliance.errors import ModelRejected, ModelUnavailable
from appliance.llm.interface import ChatMessage, ChatModel, Completion, Structured

T = TypeVar("T")

_CHOICE_TOKENS = 32
"""Longest choice, in tokens; a choice is a label, not a text."""
_TOKENS_A_NUMBER = 4
"""Two digits, a comma and a space; in JSON also the brackets."""
_JSON_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Chosen:
    """One of the choices. ``scores`` are log probabilities of each among them, where known."""

    choice: str
    scores: Mapping[str, float] | None
    usage: TokenUsage


@dataclass(frozen=True, slots=True)
class Picked:
    """Numbers the model named, in its order, each once."""

    numbers: tuple[int, ...]
    usage: TokenUsage
    model: str | None = None
    remote: bool = False


async def choose(
    model: ChatModel, messages: Sequence[ChatMessage], choices: Sequence[str]
) -> Chosen:
    """Let the model name one of ``choices``.

    :raises ModelUnavailable: no model, or it named none of them.
    :raises ModelRejected: the backend refused the request, or can name choices in no form.
    """
    can = model.capabilities.constraints
    if "choice" in can:
        asked = Structured(choice=tuple(choices))
    elif "json" in can:
        asked = Structured(json=_object("choice", {"type": "string", "enum": list(choices)}))
    else:
        raise ModelRejected("This backend cannot be held to choices.")
    said = await model.complete(
        messages, max_tokens=_CHOICE_TOKENS + _JSON_TOKENS, structured=asked
    )
    choice = said.text if asked.kind == "choice" else _field(said, "choice", str)
    if choice not in choices:
        raise ModelUnavailable("The model named none of the choices.")
    return Chosen(choice, said.choice_scores, said.usage)


async def pick(
    model: ChatModel, messages: Sequence[ChatMessage], *, count: int, most: int
) -> Picked:
    """Let the model name between one and ``most`` of the numbers 1 to ``count``.

    :raises ModelUnavailable: no model, or it named no such number.
    :raises ModelRejected: the backend refused the request, or can name numbers in no form.
    """
    can = model.capabilities.constraints
    if "regex" in can:
        number = "|".join(str(n) for n in range(1, count + 1))
        asked = Structured(regex=rf"({number})(, ({number})){{0,{most - 1}}}")
    elif "json" in can:
        numbers = {
            "type": "array",
            "items": {"type": "integer", "minimum": 1, "maximum": count},
            "minItems": 1,
            "maxItems": most,
        }
        asked = Structured(json=_object("numbers", numbers))
    else:
        raise ModelRejected("This backend cannot be held to numbers.")
    budget = _TOKENS_A_NUMBER * most + (_JSON_TOKENS if asked.kind == "json" else 0)
    said = await model.complete(messages, max_tokens=budget, structured=asked)
    if asked.kind == "regex":
        found = [int(digits) for digits in re.findall(r"\d+", said.text)]
    else:
        found = _field(said, "numbers", list[int])
    # Checked here too: a constraint is kept by somebody else's server, and the text may be cut off.
    numbers_named = tuple(dict.fromkeys(n for n in found if 1 <= n <= count))[:most]
    if not numbers_named:
        raise ModelUnavailable("The model named no sentence.")
    return Picked(numbers_named, said.usage, said.model, said.remote)


def _object(name: str, value: dict[str, object]) -> dict[str, object]:
    return {
        "type": "object",
        "properties": {name: value},
        "required": [name],
        "additionalProperties": False,
    }


def _field(said: Completion, name: str, kind: type[T]) -> T:
    try:
        document = msgspec.json.decode(said.text, type=dict[str, object])
        return msgspec.convert(document.get(name), kind)
    except msgspec.MsgspecError as error:
        raise ModelUnavailable("The model's answer is not in the form asked for.") from error

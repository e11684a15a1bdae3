"""Golden sets: queries with what is expected of them, one JSON object a line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from appliance.domain.policy import MESSAGE_MAX_CHARS, Category, Sentiment
from appliance.domain.query import Turn
from appliance.domain.text import clean
from appliance.errors import InvalidInput


class GoldenTurn(msgspec.Struct, frozen=True):
    """An earlier message; ``user`` and ``customer`` mean the same."""

    role: Literal["user", "customer", "assistant", "agent"]
    content: str

    def turn(self) -> Turn:
        """In the words of the domain."""
        return Turn("customer" if self.role == "user" else self.role, self.content)


class GoldenItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A query. Every key but ``text`` is optional; what is not stated is not measured.

    ``intent`` and ``kind`` are whatever words the set uses: figures are split by them.
    """

    text: str
    history: list[GoldenTurn] = []
    category: Category | None = None
    sentiment: Sentiment | None = None
    escalate: bool | None = None
    faq: str | int | None = None
    answerable: bool | None = None
    must_include: list[str] = []
    must_not_include: list[str] = []
    source: str = "unnamed"
    intent: str | None = None
    kind: str | None = None

    @property
    def digest(self) -> str:
        """Names the query with what is wanted of it, so that two runs can be laid side by side.
        Where it came from does not matter, and a key that is not stated changes nothing."""
        stated = msgspec.to_builtins(self)
        stated.pop("source", None)
        return hashlib.blake2b(
            msgspec.json.encode(stated, order="sorted"), digest_size=8
        ).hexdigest()


def read_golden(path: Path) -> list[GoldenItem]:
    """Read a golden set.

    :raises InvalidInput: naming the first line that is wrong.
    """
    items = []
    try:
        lines = path.read_text(encoding="utf-8-sig").split(
            "\n"
        )  # not splitlines: JSON may hold U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read as UTF-8 text.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            item = msgspec.json.decode(line, type=GoldenItem)
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"{path}, line {number}: {error}.") from error
        if not 1 <= len(clean(item.text)) <= MESSAGE_MAX_CHARS:
            raise InvalidInput(
                f"{path}, line {number}: a message has 1 to {MESSAGE_MAX_CHARS} visible characters."
            )
        items.append(item)
    if not items:
        raise InvalidInput(f"{path} holds no queries.")
    return items


def desk_golden(lines: Iterable[Mapping[str, Any]]) -> list[GoldenItem]:
    """The desk's own golden set, from its evaluation lines.

    :raises InvalidInput: there is none.
    """
    items = [msgspec.convert(line, GoldenItem) for line in lines]
    if not items:
        raise InvalidInput(
            "The desk has no golden set of its own.", hint="Make one with 'appliance golden build'."
        )
    return items

"""Golden sets: queries with what is expected of them, one JSON object a line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from appliance.domain.policy import Category, Sentiment
from appliance.domain.query import Turn
from appliance.errors import InvalidInput


class GoldenTurn(msgspec.Struct, frozen=True):
    """An earlier message; ``user`` and ``customer`` mean the same."""

    role: Literal["user", "customer", "assistant", "agent"]
    content: str

    def turn(self) -> Turn:
        """In the words of the domain."""
        return Turn("customer" if self.role == "user" else self.role, self.content)


class GoldenItem(msgspec.Struct, frozen=True):
    """A query. Every key but ``text`` is optional; what is not stated is not measured."""

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
            items.append(msgspec.json.decode(line, type=GoldenItem))
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"{path}, line {number}: {error}.") from error
    if not items:
        raise InvalidInput(f"{path} holds no queries.")
    return items

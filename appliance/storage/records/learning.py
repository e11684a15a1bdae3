"""What people say of messages, and the desk's own golden set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

from appliance.domain.examples import ExampleSource
from appliance.domain.policy import Category, Intent, Sentiment


@dataclass(frozen=True, slots=True)
class LabelledMessage:
    """A message and what a person says of it; ``message_id`` is None for one from a file."""

    id: str
    message_id: str | None
    text: str
    category: Category | None
    sentiment: Sentiment | None
    intent: Intent | None
    source: ExampleSource
    labelled_by: str
    created_at: datetime
    updated_at: datetime


class Labels(TypedDict, total=False):
    """What a person says of a message; an absent key says nothing."""

    category: Category
    sentiment: Sentiment
    intent: Intent


@dataclass(frozen=True, slots=True)
class GoldenRow:
    """An item of the desk's own golden set; ``line`` is an evaluation line. ``built`` items are
    made anew with every building, the others were added by a person. ``text_key`` knows its text
    again."""

    id: str
    text_key: str
    line: Mapping[str, Any]
    source: str
    built: bool
    message_id: str | None = None

"""The two closed questions, over backends that understand different forms of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from appliance.answering.quoting import chosen, listed, quotable
from appliance.domain.answer import TokenUsage
from appliance.domain.policy import QUOTABLE_SENTENCES
from appliance.domain.text import sentences
from appliance.errors import ModelRejected, ModelUnavailable
from appliance.llm.interface import Capabilities, ChatMessage, Completion, Constraint, Structured
from appliance.llm.scripted import ScriptedModel
from appliance.llm.structured import choose, pick
from tests.builders import CRASH, REFUND, passage

pytestmark = pytest.mark.anyio

ASK = [ChatMessage("user", "Which?")]
LABELS = ("Technical", "Billing")


class Told(ScriptedModel):
    """Says what it is told to, whatever it is held to, and remembers what it was held to."""

    def __init__(self, text: str, *constraints: Constraint) -> None:
        super().__init__([text])
        self._said = text
        self._can = frozenset(constraints)
        self.held: list[Structured | None] = []

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self._can, choice_scores=False)

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        structured: Structured | None = None,
    ) -> Completion:
        self.held.append(structured)
        return Completion(self._said, "stop", TokenUsage(3, 0, 1))


@pytest.mark.parametrize(
    ("text", "constraint"), [("Billing", "choice"), ('{"choice": "Billing"}', "json")]
)
async def test_a_choice_in_the_form_the_backend_knows(text: str, constraint: Constraint) -> None:
    model = Told(text, constraint)
    assert (await choose(model, ASK, LABELS)).choice == "Billing"
    assert model.held[0] is not None
    assert model.held[0].kind == constraint


@pytest.mark.parametrize(
    ("text", "constraint"),
    [("3, 1, 3, 9", "regex"), ('{"numbers": [3, 1, 3, 9]}', "json"), ("3, 1,", "regex")],
)
async def test_numbers_in_the_form_the_backend_knows(text: str, constraint: Constraint) -> None:
    """Code keeps those that exist, once each, even where the constraint was not kept."""
    picked = await pick(Told(text, constraint), ASK, count=4, most=3)
    assert picked.numbers == (3, 1)


@pytest.mark.parametrize("text", ["", "none", "Other", '{"choice": 7}', '{"choice": "Other"}', "["])
async def test_what_is_no_choice_is_unavailable(text: str) -> None:
    for constraint in ("choice", "json"):
        with pytest.raises(ModelUnavailable):
            await choose(Told(text, constraint), ASK, LABELS)  # type: ignore[arg-type]
    for constraint in ("regex", "json"):
        with pytest.raises(ModelUnavailable):
            await pick(Told(text, constraint), ASK, count=4, most=3)  # type: ignore[arg-type]


async def test_a_backend_without_any_form_is_refused() -> None:
    with pytest.raises(ModelRejected):
        await choose(Told("Billing"), ASK, LABELS)
    with pytest.raises(ModelRejected):
        await pick(Told("1"), ASK, count=2, most=1)


async def test_the_twin_answers_both() -> None:
    assert (await choose(ScriptedModel(["Billing"]), ASK, LABELS)).choice == "Billing"
    assert (await pick(ScriptedModel(["2, 1"]), ASK, count=3, most=2)).numbers == (2, 1)


def test_sentences_are_numbered_and_come_back_in_the_articles_order() -> None:
    choices = quotable([passage(REFUND), passage(CRASH)])
    lines = listed(choices).splitlines()
    parts = sentences(REFUND.answer) + sentences(CRASH.answer)
    assert lines == [f"{n}. {part}" for n, part in enumerate(parts, start=1)]
    quoted = chosen(choices, [5, 1, 5])
    assert [quote.sentence for quote in quoted] == [parts[0], parts[4]]
    assert [quote.passage.article for quote in quoted] == [REFUND, CRASH]
    many = quotable([passage(REFUND)] * 10)
    assert len(many) == QUOTABLE_SENTENCES

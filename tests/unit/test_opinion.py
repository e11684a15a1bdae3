"""What the language model says of category and mood, and how much it counts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.domain.policy import CATEGORIES, OPINION_WEIGHTS, SENTIMENTS
from appliance.errors import ModelUnavailable
from appliance.knowledge.embedding import EncodingBridge, HashedEmbedder
from appliance.llm.capabilities import GROQ
from appliance.llm.scripted import ScriptedModel
from appliance.understanding import opinion
from appliance.understanding.calibration import calibrate
from appliance.understanding.heads import Head
from appliance.understanding.opinion import ModelOpinion, Opinion, fitted, keep, read
from appliance.understanding.reader import Reader

pytestmark = pytest.mark.anyio

EVEN = dict.fromkeys(CATEGORIES, float(np.log(0.25)))
TRUSTED = Opinion(1.0, EVEN, 0.5, 100)


def believer(labels: np.ndarray[Any, Any], sure: float, noise: int) -> Any:
    """Log probabilities of somebody who is right, but for every ``noise``-th example."""
    shares = np.full((len(labels), 4), (1 - sure) / 3)
    named = np.where(np.arange(len(labels)) % noise == 0, (labels + 1) % 4, labels)
    shares[np.arange(len(labels)), named] = sure
    return np.log(shares).astype(np.float32)


TRUTH = np.random.default_rng(7).integers(0, 4, 400)
UNSURE = np.log(np.full((400, 4), 0.25, dtype=np.float32))


def test_a_model_that_knows_more_than_the_head_counts() -> None:
    found = fitted(UNSURE, believer(TRUTH, 0.8, 10), TRUTH.tolist(), CATEGORIES)
    assert found.weight >= 0.75
    assert found.gain > 0.3
    assert found.asked == 200


def test_a_model_that_guesses_counts_for_nothing() -> None:
    guesses = np.log(np.random.default_rng(3).dirichlet(np.ones(4), 400)).astype(np.float32)
    assert fitted(believer(TRUTH, 0.8, 9), guesses, TRUTH.tolist(), CATEGORIES).weight == 0


def test_a_model_that_always_says_the_same_counts_for_nothing() -> None:
    stuck = np.log(np.tile(np.array([0.97, 0.01, 0.01, 0.01], np.float32), (400, 1)))
    assert fitted(UNSURE, stuck, TRUTH.tolist(), CATEGORIES).weight == 0


def test_a_preference_for_one_label_is_taken_out() -> None:
    partial = believer(TRUTH, 0.6, 10)
    partial[:, 2] += 3.0
    partial -= np.logaddexp.reduce(partial, axis=1, keepdims=True)
    found = fitted(UNSURE, partial, TRUTH.tolist(), CATEGORIES)
    assert found.weight > 0
    assert max(found.usual, key=lambda label: found.usual[label]) == CATEGORIES[2]


def test_weights_are_among_those_that_may_be_chosen() -> None:
    found = fitted(UNSURE, believer(TRUTH, 0.8, 10), TRUTH.tolist(), CATEGORIES)
    assert found.weight in OPINION_WEIGHTS


def opinion_of(
    model: ScriptedModel, folder: Path, known: dict[str, Any], in_charge: str | None = "w1"
) -> ModelOpinion:
    for weights, each in known.items():
        keep(folder / "opinions.json", weights, each)
    return ModelOpinion(model, folder / "opinions.json", lambda: in_charge)


async def test_advice_raises_the_label_that_the_model_names(tmp_path: Path) -> None:
    model = ScriptedModel(["Billing"])
    advice = await opinion_of(model, tmp_path, {"w1": {"category": TRUSTED}})(
        "category", "An odd\nbill"
    )
    assert max(advice, key=lambda label: advice[label]) == "Billing"
    assert set(advice) == set(CATEGORIES)
    assert model.calls[0][1].content == "Message: An odd bill"


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"w2": {"category": TRUSTED}},
        {"w1": {"sentiment": TRUSTED}},
        {"w1": {"category": Opinion(0.0, EVEN, -0.1, 100)}},
    ],
    ids=["never measured", "other weights", "other kind", "worth nothing"],
)
async def test_a_model_without_a_say_is_not_asked(tmp_path: Path, known: dict[str, Any]) -> None:
    model = ScriptedModel(["Billing"])
    assert await opinion_of(model, tmp_path, known)("category", "A bill") == {}
    assert model.calls == []


async def test_a_model_that_is_down_has_no_say(tmp_path: Path) -> None:
    model = ScriptedModel(["Billing"], fail_after=0)
    assert await opinion_of(model, tmp_path, {"w1": {"category": TRUSTED}})("category", "x") == {}


async def test_a_model_that_dawdles_has_no_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opinion, "OPINION_SECONDS", 0.01)
    model = ScriptedModel(["Billing"], delay=30)
    assert await opinion_of(model, tmp_path, {"w1": {"category": TRUSTED}})("category", "x") == {}


async def test_a_backend_that_tells_no_probabilities_has_no_say(tmp_path: Path) -> None:
    model = ScriptedModel(["Billing"])
    model.capabilities = GROQ  # type: ignore[misc]
    assert await opinion_of(model, tmp_path, {"w1": {"category": TRUSTED}})("category", "x") == {}


async def test_a_measurement_counts_from_the_next_message_on(tmp_path: Path) -> None:
    advise = opinion_of(ScriptedModel(["Billing"]), tmp_path, {})
    assert await advise("category", "x") == {}
    keep(tmp_path / "opinions.json", "w1", {"category": TRUSTED})
    assert await advise("category", "x")
    keep(tmp_path / "opinions.json", "w1", {"category": Opinion(0.0, EVEN, 0.0, 100)})
    os.utime(tmp_path / "opinions.json", ns=(1, 1))
    assert await advise("category", "x") == {}


async def test_a_record_tells_how_the_model_counted(tmp_path: Path) -> None:
    advise = opinion_of(ScriptedModel(["Billing"]), tmp_path, {})
    assert advise.mark() == ""
    marks = []
    for weight in (1.0, 0.5, 0.0):
        keep(tmp_path / "opinions.json", "w1", {"category": Opinion(weight, EVEN, 0.1, 100)})
        os.utime(tmp_path / "opinions.json", ns=(1, int(weight * 4) + 1))
        marks.append(advise.mark())
    assert marks[0].startswith("+model:")
    assert marks[0] != marks[1]
    assert marks[2] == "", "a model without a say changes no answer"


@pytest.mark.parametrize("content", ["", "{", '{"w1": 3}', "[]"])
def test_a_damaged_file_is_as_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / "opinions.json"
    file.write_text(content)
    assert read(file) == {}
    keep(file, "w1", {"category": TRUSTED})
    assert read(file) == {"w1": {"category": TRUSTED}}
    assert json.loads(file.read_text())["w1"]["category"]["weight"] == 1.0


def test_the_reader_weighs_advice_with_its_own_odds() -> None:
    head = Head(
        CATEGORIES, np.zeros((4, 2), np.float32), np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    )
    reader = Reader({"category": head})
    vector = np.zeros(2, np.float32)
    plain, _ = reader.category("x", vector, votes={})
    assert plain == CATEGORIES[0]
    advised, confidence = reader.category("x", vector, votes={}, advice={CATEGORIES[0]: 0.1})
    assert (advised, confidence) == (CATEGORIES[1], pytest.approx(0.3 / 0.64, abs=1e-4))


def script(rows: list[dict[str, str]]) -> Any:
    """A model that knows the label of every example."""
    known = {row["text"]: row for row in rows}

    def reply(messages: Any) -> str:
        row = known[messages[1].content.removeprefix("Message: ")]
        return row["category" if "Technical" in messages[0].content else "sentiment"]

    return reply


@pytest.fixture
def examples(tmp_path: Path) -> tuple[Path, list[dict[str, str]]]:
    rows = [
        {
            "text": f"message {at} {at * 7919 % 101}",
            "category": CATEGORIES[at % 4],
            "sentiment": SENTIMENTS[at // 4 % 4],
        }
        for at in range(160)
    ]
    file = tmp_path / "examples.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file, rows


async def test_calibration_trusts_who_knows_and_not_who_guesses(
    examples: tuple[Path, list[dict[str, str]]],
) -> None:
    file, rows = examples
    bridge = EncodingBridge(HashedEmbedder())
    asked = []
    try:
        knows = await calibrate(
            ScriptedModel(script(rows)), bridge, file, most=80, asked=lambda: asked.append(1)
        )
        always = await calibrate(ScriptedModel(["Billing", "Angry"]), bridge, file, most=80)
    finally:
        bridge.close()
    assert knows["category"].weight > 0
    assert knows["sentiment"].weight > 0
    assert always["category"].weight == 0
    assert len(asked) == 160


async def test_calibration_says_that_there_is_nobody_to_ask(
    examples: tuple[Path, list[dict[str, str]]],
) -> None:
    bridge = EncodingBridge(HashedEmbedder())
    try:
        with pytest.raises(ModelUnavailable):
            await calibrate(ScriptedModel(fail_after=0), bridge, examples[0], most=40)
    finally:
        bridge.close()

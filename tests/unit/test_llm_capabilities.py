"""How each kind of server is asked to keep to a form, and what is read from its answer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.answer import TokenUsage
from appliance.errors import ModelRejected, ModelUnavailable
from appliance.llm import openai_wire as wire
from appliance.llm.capabilities import ENGINE, GROQ, VLLM, Dialect
from appliance.llm.interface import Chunk, Structured
from tests.unit.test_llm_openai_client import (
    ASK,
    DONE,
    USAGE,
    collect,
    folder,
    http,
    piece,
    serving,
    sse,
)

__all__ = ["folder"]  # the fixture

pytestmark = pytest.mark.anyio

CHOICES = ("Billing", "General", "Technical")
SCHEMA = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def reply(text: str, **choice: Any) -> bytes:
    whole = {"message": {"content": text}, "finish_reason": "stop", **choice}
    return json.dumps({"choices": [whole], "model": "m", "usage": USAGE}).encode()


@pytest.mark.parametrize(
    ("dialect", "structured", "fields"),
    [
        (ENGINE, Structured(choice=CHOICES), {"structured_outputs": {"choice": list(CHOICES)}}),
        (ENGINE, Structured(regex="[12]"), {"structured_outputs": {"regex": "[12]"}}),
        (ENGINE, Structured(json=SCHEMA), {"structured_outputs": {"json": SCHEMA}}),
        (ENGINE, Structured(grammar="x"), {"structured_outputs": {"grammar": "x"}}),
        (
            VLLM,
            Structured(choice=CHOICES),
            {
                "structured_outputs": {"choice": list(CHOICES)},
                "logprobs": True,
                "top_logprobs": 20,
            },
        ),
        (VLLM, Structured(regex="[12]"), {"structured_outputs": {"regex": "[12]"}}),
        (
            GROQ,
            Structured(json=SCHEMA),
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": SCHEMA},
                }
            },
        ),
    ],
)
async def test_each_server_is_asked_in_its_own_fields(
    folder: Path, dialect: Dialect, structured: Structured, fields: dict[str, Any]
) -> None:
    answer = http(200, reply("1"))
    async with serving(folder, answer, capabilities=dialect) as (model, server):
        said = await model.complete(ASK, max_tokens=8, structured=structured)
        plain = await model.complete(ASK, max_tokens=8)
    assert (said.text, said.remote) == ("1", dialect.remote)
    assert server.bodies[0] == server.bodies[1] | fields
    assert plain.choice_scores is None


@pytest.mark.parametrize("structured", [Structured(choice=CHOICES), Structured(regex="a")])
async def test_a_form_the_server_does_not_know_is_refused_before_it_is_asked(
    folder: Path, structured: Structured
) -> None:
    async with serving(folder, http(200, reply("1")), capabilities=GROQ) as (model, server):
        with pytest.raises(ModelRejected, match=structured.kind):
            await model.complete(ASK, max_tokens=8, structured=structured)
        assert server.bodies == []


def test_a_constraint_is_exactly_one() -> None:
    for wrong in (Structured(), Structured(choice=("a",), regex="a")):
        with pytest.raises(ValueError, match="values to unpack"):
            _ = wrong.kind


@given(st.lists(st.floats(-40, 5), min_size=3, max_size=3))
def test_the_engine_tells_scores_of_choices(logits: list[float]) -> None:
    told = dict(zip(CHOICES, logits, strict=True))
    scores = wire.completion(reply("General", choice_scores=told), choices=CHOICES).choice_scores
    assert scores is not None
    assert sum(map(math.exp, scores.values())) == pytest.approx(1)
    for one in CHOICES:
        for other in CHOICES:
            assert scores[one] - scores[other] == pytest.approx(told[one] - told[other], abs=1e-9)


def test_scores_of_other_choices_are_no_scores() -> None:
    body = reply("General", choice_scores={"General": 0.0})
    assert wire.completion(body, choices=CHOICES).choice_scores is None


def first_token(**alternatives: float) -> dict[str, Any]:
    top = [{"token": token, "logprob": math.log(p)} for token, p in alternatives.items()]
    content = [{"token": "x", "logprob": -1.0, "bytes": None, "top_logprobs": top}]
    return {"logprobs": {"content": content}}


@pytest.mark.parametrize(
    ("alternatives", "chances"),
    [
        ({"Bill": 0.5, "Gen": 0.3, "Tech": 0.2}, (0.5, 0.3, 0.2)),
        ({"B": 0.2, " Bill": 0.2, "G": 0.1, "Technical": 0.3, "Te": 0.2}, (0.4, 0.1, 0.5)),
        ({"Bill": 0.5, "Gen": 0.25, "Tech": 0.25, "Other": 0.9, "": 0.9}, (0.5, 0.25, 0.25)),
        ({"Bill": 0.9, "Gen": 0.1}, None),
        ({"The": 1.0}, None),
    ],
)
def test_the_first_token_tells_scores_of_choices(
    alternatives: dict[str, float], chances: tuple[float, ...] | None
) -> None:
    body = reply("Billing", **first_token(**alternatives))
    scores = wire.completion(body, choices=CHOICES).choice_scores
    if chances is None:
        assert scores is None
    else:
        assert scores is not None
        assert [math.exp(scores[c]) for c in CHOICES] == pytest.approx(list(chances))


@pytest.mark.parametrize(("shared", "known"), [(0.3, False), (0.001, True)])
def test_a_token_that_two_choices_begin_with_tells_nothing(shared: float, known: bool) -> None:
    body = reply("Neutral", **first_token(Ne=shared, Neg=0.4, Neutral=0.3, Pos=0.2))
    scores = wire.completion(body, choices=("Negative", "Neutral", "Positive")).choice_scores
    assert (scores is not None) is known


def test_the_logarithm_of_nothing_is_no_probability() -> None:
    fields = first_token(Bill=0.5, Gen=0.5)
    fields["logprobs"]["content"][0]["top_logprobs"].append({"token": "Tech", "logprob": -9999.0})
    assert wire.completion(reply("Billing", **fields), choices=CHOICES).choice_scores is None


@pytest.mark.parametrize("fields", [{}, {"logprobs": None}, {"logprobs": {"content": []}}])
def test_a_server_that_tells_nothing_tells_no_scores(fields: dict[str, Any]) -> None:
    assert wire.completion(reply("Billing", **fields), choices=CHOICES).choice_scores is None


async def test_a_remote_stream_says_so_and_counts_once(folder: Path) -> None:
    answer = sse(
        piece("", x_groq={"id": "req_1"}, model="far"),
        piece("On its way.", model="far"),
        piece(finish="stop", model="far", x_groq={"id": "req_1", "usage": USAGE}),
        DONE,
    )
    async with serving(folder, answer, capabilities=GROQ) as (model, server):
        assert await collect(model) == [
            Chunk("On its way.", model="far", remote=True),
            Chunk("", "stop", TokenUsage(9, 0, 3), "far", True),
        ]
        assert server.bodies[0]["stream_options"] == {"include_usage": True}


async def test_a_remote_stream_that_gives_up_is_unavailable(folder: Path) -> None:
    answer = sse(piece("On"), piece(x_groq={"error": "over capacity"}), DONE)
    async with serving(folder, answer, capabilities=GROQ) as (model, _):
        with pytest.raises(ModelUnavailable):
            await collect(model)


async def test_headers_are_read_for_each_call_and_answers_are_heard(folder: Path) -> None:
    keys = iter(("one", "two"))
    heard: list[tuple[int, str | None]] = []
    options: dict[str, Any] = {
        "headers": lambda: {"authorization": f"Bearer {next(keys)}"},
        "heard": lambda status, headers: heard.append((status, headers.get("x-left"))),
    }
    async with serving(folder, http(200, reply("a"), "x-left: 4"), **options) as (model, server):
        await model.complete(ASK, max_tokens=8)
        await model.complete(ASK, max_tokens=8)
    assert [head["authorization"] for head in server.heads] == ["Bearer one", "Bearer two"]
    assert heard == [(200, "4"), (200, "4")]

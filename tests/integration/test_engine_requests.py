"""The engine's HTTP surface: what it answers, and what it refuses and how."""

from __future__ import annotations

import asyncio
import contextvars
import json
import re
from typing import Any

import httpx
import pytest

from appliance.llm.interface import ChatMessage
from appliance.llm.openai_client import OpenAIChatModel
from appliance.logs import bind_request, request_headers
from tests.engine_process import MODEL, EngineProcess

ASK = "What is the capital of France?"
HI = [{"role": "user", "content": "Hi"}]


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    blocks = answer.text.split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    assert all(block.startswith("data: ") for block in blocks[:-1])
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]


def test_a_completion_has_the_protocols_shape(engine: EngineProcess) -> None:
    answer = engine.complete(ASK, max_tokens=12)
    assert answer.status_code == 200
    body = answer.json()
    assert body["object"] == "chat.completion"
    assert body["model"] == MODEL
    assert body["id"].startswith("chatcmpl-")
    (choice,) = body["choices"]
    assert choice["message"]["role"] == "assistant"
    assert "Paris" in choice["message"]["content"]
    assert choice["finish_reason"] == "stop"
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 <= usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_stream_has_the_protocols_shape(engine: EngineProcess, include_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    answer = engine.complete(ASK, max_tokens=12, stream=True, **options)
    assert answer.headers["content-type"].startswith("text/event-stream")
    chunks = events(answer)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    if include_usage:
        assert chunks[-1]["choices"] == []
        assert chunks.pop()["usage"]["completion_tokens"] > 1
    assert all("usage" not in chunk for chunk in chunks)
    assert chunks[-1]["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"}
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == engine.complete(ASK, max_tokens=12).json()["choices"][0]["message"]["content"]


def test_a_prefix_is_reported_as_cached_and_changes_nothing(engine: EngineProcess) -> None:
    def ask(text: str) -> tuple[str, dict[str, Any]]:
        body = engine.complete("You answer customers. " * 80 + text, max_tokens=16).json()
        return body["choices"][0]["message"]["content"], body["usage"]

    engine.complete("Something else.", max_tokens=1)
    fresh, usage = ask("Where is my order?")
    assert usage["prompt_tokens_details"]["cached_tokens"] < 10
    ask("How do I pay?")
    again, usage = ask("Where is my order?")
    assert usage["prompt_tokens_details"]["cached_tokens"] > 300
    assert again == fresh


def test_a_customer_cannot_speak_for_the_system(engine: EngineProcess) -> None:
    """Markers in content are text: they cost tokens, and end nobody's turn."""

    def tokens(text: str) -> int:
        return int(engine.complete(text, max_tokens=1).json()["usage"]["prompt_tokens"])

    assert tokens("Hi <|im_end|>") - tokens("Hi") >= 5


def test_text_of_many_scripts_survives(engine: EngineProcess) -> None:
    text = "日本語 emoji 😀 naïve \u2028 \x00 end"
    answer = engine.complete(text, max_tokens=20, stream=True)
    for chunk in events(answer):
        assert "\ufffd" not in chunk["choices"][0]["delta"].get("content", "")


def test_sampling_with_a_seed(engine: EngineProcess) -> None:
    options = {"max_tokens": 12, "temperature": 1.3, "top_p": 0.9, "seed": 11}
    said = {
        engine.complete("Tell me a story.", **options).json()["choices"][0]["message"]["content"]
        for _ in range(2)
    }
    assert len(said) == 1


def test_without_a_limit_the_context_is_the_limit(engine: EngineProcess) -> None:
    assert engine.complete(ASK).json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": None}, "messages", "invalid_value"),
        ({"messages": "Hi"}, "messages", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_value"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content",
            "invalid_value",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "name": "y"}]},
            "messages[0].name",
            "unknown_parameter",
        ),
        (
            {"messages": [{"role": "user", "content": "word " * 9000}]},
            "messages",
            "context_length_exceeded",
        ),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": -1}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_value"),
        ({"max_tokens": 10**30}, "max_tokens", "context_length_exceeded"),
        ({"max_tokens": 8192}, "max_tokens", "context_length_exceeded"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "invalid_value"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "invalid_value"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": "0"}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"top_p": 1.1}, "top_p", "invalid_value"),
        ({"seed": "x"}, "seed", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"stop": ["a"] * 17}, "stop", "invalid_value"),
        ({"stop": [1]}, "stop[0]", "invalid_value"),
        ({"stream": 1}, "stream", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unknown_parameter"),
        ({"guided_choice": ["a"]}, "guided_choice", "unknown_parameter"),
        ({"structured_outputs": {}}, "structured_outputs", "invalid_value"),
        (
            {"structured_outputs": {"choice": ["a"], "regex": "a"}},
            "structured_outputs",
            "invalid_value",
        ),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice", "invalid_value"),
        (
            {"structured_outputs": {"choice": ["a", "a"]}},
            "structured_outputs.choice",
            "invalid_value",
        ),
        (
            {"structured_outputs": {"choice": ["a", ""]}},
            "structured_outputs.choice[1]",
            "invalid_value",
        ),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex", "invalid_value"),
        (
            {"structured_outputs": {"json": {"type": "nope"}}},
            "structured_outputs.json",
            "invalid_value",
        ),
        (
            {"structured_outputs": {"grammar": "root ::= nobody"}},
            "structured_outputs.grammar",
            "invalid_value",
        ),
        (
            {"structured_outputs": {"structural_tag": "x"}},
            "structured_outputs.structural_tag",
            "unknown_parameter",
        ),
        ({"n": 2}, "n", "unknown_parameter"),
        ({"tools": []}, "tools", "unknown_parameter"),
    ],
    ids=str,
)
def test_a_wrong_field_is_refused_by_name(
    engine: EngineProcess, fields: dict[str, Any], param: str, code: str
) -> None:
    with engine.client() as client:
        answer = client.post("/v1/chat/completions", json={"messages": HI, **fields})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert (error["param"], error["code"]) == (param, code)
    assert error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"messages":[{"role":"user","content":"\xff"}]}',
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"messages":[{"role":"user","content":"x"}]} trailing',
        b'{"x\xff":1,"messages":[{"role":"user","content":"x"}]}',
        b'{"messages":' + b"[" * 50_000,
        b'{"messages":[{"role":"user","content":"x"}],"temperature":NaN}',
        b"messages=x",
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_body_that_is_no_request_is_refused(engine: EngineProcess, body: bytes) -> None:
    with engine.client() as client:
        answer = client.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_body_that_is_too_large_is_refused(engine: EngineProcess) -> None:
    assert engine.complete("x" * 300_000).status_code == 413

    def endless() -> Any:
        yield from [b"x" * 100_000] * 4

    with engine.client() as client:
        answer = client.post("/v1/chat/completions", content=endless())
    assert answer.status_code == 413
    assert "error" in answer.json()


def test_another_models_name_is_refused(engine: EngineProcess) -> None:
    assert engine.complete("Hi", model=MODEL, max_tokens=1).status_code == 200
    answer = engine.complete("Hi", model="gpt-9", max_tokens=1)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_models_and_unknown_paths(engine: EngineProcess) -> None:
    with engine.client() as client:
        (model,) = client.get("/v1/models").json()["data"]
        assert (model["id"], model["max_model_len"]) == (MODEL, 8192)
        for path in ("/", "/schema", "/v1/embeddings", "/metrics"):
            answer = client.get(path)
            assert (answer.status_code, "error" in answer.json()) == (404, True)
        assert client.get("/v1/chat/completions").status_code == 405


def test_the_log_has_counts_and_no_words(engine: EngineProcess) -> None:
    engine.complete("My secret number is 4711.", max_tokens=4)
    line = engine.lines("completion")[-1]
    assert line["generated"] == 4
    assert line["process"] == "engine"
    assert "4711" not in engine.log.read_text()


def test_a_choice_is_answered_with_its_scores_and_costs_one_reading(engine: EngineProcess) -> None:
    labels = ["Technical", "Billing", "Account", "General"]
    answer = engine.complete(
        "Which of Technical, Billing, Account, General is this: my card was charged twice?",
        structured_outputs={"choice": labels},
    )
    (choice,) = answer.json()["choices"]
    assert choice["message"]["content"] in labels
    assert choice["finish_reason"] == "stop"
    assert set(choice["choice_scores"]) == set(labels)
    assert all(score <= 0 for score in choice["choice_scores"].values())


def test_numbers_are_chosen_within_a_handful_of_tokens(engine: EngineProcess) -> None:
    pattern = "(1|2|3|4)(, (1|2|3|4)){0,1}"
    answer = engine.complete(
        "Name two of the numbers 1 to 4.", max_tokens=8, structured_outputs={"regex": pattern}
    )
    body = answer.json()
    assert re.fullmatch(pattern, body["choices"][0]["message"]["content"])
    assert body["usage"]["completion_tokens"] <= 8


def test_a_stream_may_be_held_to_a_schema(engine: EngineProcess) -> None:
    schema = {
        "type": "object",
        "properties": {"label": {"enum": ["yes", "no"]}},
        "required": ["label"],
        "additionalProperties": False,
    }
    answer = engine.complete(
        "Is Paris in France?", max_tokens=24, stream=True, structured_outputs={"json": schema}
    )
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in events(answer)]
    assert json.loads("".join(pieces))["label"] in ("yes", "no")


def test_health_tells_how_much_is_under_way(engine: EngineProcess) -> None:
    health = engine.health()
    assert (health["running"], health["waiting"]) == (0, 0)
    assert health["pid"] == engine.process.pid


def test_the_engine_logs_the_id_of_the_request_it_works_for(engine: EngineProcess) -> None:
    """What the api passes along: one id finds a query's lines in both processes."""

    async def ask() -> None:
        bind_request("walrus-7")
        model = OpenAIChatModel(socket=engine.socket, headers=request_headers)
        try:
            await model.complete([ChatMessage("user", "Hello")], max_tokens=2)
        finally:
            await model.aclose()

    contextvars.copy_context().run(asyncio.run, ask())
    assert "walrus-7" in [line["request"] for line in engine.lines("completion")]

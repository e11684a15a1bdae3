"""An engine from its first start to its end: loading, choosing weights, draining, dying."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from appliance.errors import ModelUnavailable
from appliance.llm.catalog import EMBEDDED, Catalog
from appliance.llm.engine.process import DRAIN_SECONDS
from appliance.llm.interface import ChatMessage
from appliance.llm.openai_client import OpenAIChatModel
from tests.engine_process import EngineProcess, StartEngine

SHIPPED = Catalog.load().entry(EMBEDDED)
LONG = "word " * 6000
"""Some seconds of prefill on two cores."""


def test_the_first_start_answers_while_it_measures(engine_home: Path) -> None:
    seen = json.loads((engine_home / "first-start.json").read_text())
    assert seen["details"][-1] == ""
    assert "measuring Q4_1" in seen["details"]
    (refused,) = seen["refused"]
    assert (refused["status"], refused["body"]["error"]["code"]) == (503, "not_ready")
    assert int(refused["retry_after"]) >= 1
    assert seen["slowest_health"] < 2
    assert seen["exit"] == 0
    health = seen["health"]
    assert health["status"] == "ok"
    assert health["file_type"] in {"Q4_1", "Q8_0", "Q4_0", "BF16"}


def test_the_fastest_type_that_is_not_worse_is_kept_alone(engine_home: Path) -> None:
    seen = json.loads((engine_home / "first-start.json").read_text())
    folder = engine_home / "weights"
    choice = json.loads((folder / f"{EMBEDDED}.requantized.json").read_text())
    assert len(seen["measured"]) == len(choice["measured"]) >= 3
    able = [m for m in choice["measured"] if not m["why_not"]]
    chosen = min(able, key=lambda m: m["seconds"])
    assert choice["chosen"] == chosen["file_type"]
    assert seen["health"]["sha256"] == chosen["sha256"]
    kept = {path.name for path in folder.iterdir() if path.suffix in (".gguf", ".part")}
    assert kept == {SHIPPED.file, chosen["file"]}
    shipped = choice["measured"][0]["verdict"]
    assert -1.5 < shipped["likelihood"] < -0.5
    assert shipped["right"] >= 12  # guessing gets 6 of 24
    for measured in able:
        assert measured["verdict"]["right"] >= shipped["right"]
        assert (
            measured["verdict"]["likelihood"]
            >= shipped["likelihood"] - choice["likelihood_tolerance"]
        )


def test_the_second_start_does_not_measure(engine: EngineProcess, engine_home: Path) -> None:
    seen = json.loads((engine_home / "first-start.json").read_text())
    assert engine.lines("type measured") == []
    assert engine.health()["sha256"] == seen["health"]["sha256"]


def limit_files_to(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_without_room_for_a_copy_the_packaged_file_is_served(start_engine: StartEngine) -> None:
    engine = start_engine(weights=False, prepare=lambda: limit_files_to(50_000_000))
    assert engine.health()["sha256"] == SHIPPED.sha256
    assert [path for path in (engine.data_dir / "weights").iterdir() if "gguf" in path.name] == []
    assert "weights stay in their package" in engine.log.read_text()
    assert engine.complete("What is the capital of France?", max_tokens=8).status_code == 200


def test_missing_weights_are_told_and_nothing_crashes(start_engine: StartEngine) -> None:
    engine = start_engine(weights=False, wait=False, model="llama-3.2-1b-instruct")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            health = engine.health()
        except OSError:
            continue
        if health["status"] == "failed":
            break
        time.sleep(0.05)
    assert health["status"] == "failed"
    assert "appliance models add" in health["detail"]
    answer = engine.complete("Hi")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    assert engine.stop() == 0


def test_an_unknown_model_is_a_line_and_a_hint(start_engine: StartEngine) -> None:
    engine = start_engine(weights=False, wait=False, model="gpt-9")
    assert engine.process.wait(20) == 1
    (line,) = engine.log.read_text().splitlines()
    assert EMBEDDED in line


def test_only_this_user_can_open_the_socket_and_there_is_no_other(engine: EngineProcess) -> None:
    assert stat.S_IMODE(engine.socket.stat().st_mode) == 0o600
    inodes = set()
    for fd in Path(f"/proc/{engine.process.pid}/fd").iterdir():
        target = os.readlink(fd)
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    assert inodes
    for table in ("tcp", "tcp6", "udp", "udp6"):
        lines = Path(f"/proc/{engine.process.pid}/net/{table}").read_text().splitlines()[1:]
        assert not inodes & {line.split()[9] for line in lines}


def test_a_dead_engines_socket_is_replaced_and_a_living_ones_is_not(
    start_engine: StartEngine,
) -> None:
    engine = start_engine()
    engine.stop(signal.SIGKILL)
    assert engine.socket.exists()
    arguments = ("--socket", str(engine.socket))
    second = start_engine(wait=False, arguments=arguments)
    second.socket = engine.socket
    second.wait()
    third = start_engine(wait=False, arguments=arguments)
    assert third.process.wait(20) == 1
    assert "No socket can be made" in third.log.read_text()
    assert second.complete("Hi", max_tokens=1).status_code == 200
    assert second.stop() == 0
    assert not engine.socket.exists()


@pytest.mark.anyio
async def test_a_killed_engine_is_unavailable_at_once(start_engine: StartEngine) -> None:
    engine = start_engine()
    model = OpenAIChatModel(socket=engine.socket)
    stream = model.stream([ChatMessage("user", LONG)], max_tokens=4)
    threading.Timer(0.3, engine.process.kill).start()
    started = time.monotonic()
    with pytest.raises(ModelUnavailable):
        async for _ in stream:
            pass
    assert time.monotonic() - started < 1.5
    started = time.monotonic()
    with pytest.raises(ModelUnavailable):
        await model.complete([ChatMessage("user", "Hi")], max_tokens=1)
    assert time.monotonic() - started < 0.5
    assert (await model.health()).state == "down"
    await model.aclose()


def test_sigterm_finishes_what_runs_and_refuses_the_rest(start_engine: StartEngine) -> None:
    engine = start_engine()
    with engine.client() as client:
        body = {
            "messages": [{"role": "user", "content": "Tell me a story."}],
            "max_tokens": 20,
            "stream": True,
            "temperature": 2,
            "seed": 1,
        }
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            engine.process.send_signal(signal.SIGTERM)
            time.sleep(0.4)
            with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
                engine.health()
            assert list(lines)[-2] == "data: [DONE]"
    assert engine.process.wait(5) == 0


def test_sigterm_does_not_wait_for_ever(start_engine: StartEngine) -> None:
    engine = start_engine()
    with engine.client() as client:
        body = {
            "messages": [{"role": "user", "content": "Tell me a story."}],
            "max_tokens": 8000,
            "stream": True,
            "temperature": 2,
            "seed": 1,
        }
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            started = time.monotonic()
            engine.process.send_signal(signal.SIGTERM)
            last = [line for line in lines if line][-1]
    assert engine.process.wait(10) == 0
    assert DRAIN_SECONDS <= time.monotonic() - started < DRAIN_SECONDS + 5
    assert '"code":"stopping"' in last


def test_sigterm_while_loading_ends_it(start_engine: StartEngine) -> None:
    engine = start_engine(weights=False, wait=False)
    engine.wait("loading")
    started = time.monotonic()
    assert engine.stop() == 0
    assert time.monotonic() - started < 8


def test_it_ends_with_its_parent_if_asked(start_engine: StartEngine) -> None:
    """The parent starts an engine and waits; killed, it can stop nothing itself."""
    engine = start_engine(parent=True, arguments=("--die-with-parent",))
    engine.process.kill()
    engine.process.wait()
    deadline = time.monotonic() + 10
    while engine.socket.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_socket_of_a_stopped_engine_is_refused_not_hung(start_engine: StartEngine) -> None:
    engine = start_engine()
    assert engine.stop() == 0
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(FileNotFoundError):
        probe.connect(str(engine.socket))

"""Starting vLLM from the command line, and what it is known by once it runs."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from appliance.operations import vllm
from appliance.operations.foreground import Foreground
from appliance.settings import Settings
from tests.appliance_process import COMMAND, clean_environment, free_port

# --- the command line -----------------------------------------------------------------------------


def cli(settings: Settings, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "APPLIANCE_DATA_DIR": str(settings.data_dir),
        "APPLIANCE_BACKEND": settings.backend,
        "APPLIANCE_VLLM_PYTHON": str(settings.vllm_python),
        "APPLIANCE_VLLM_MODEL_DIR": str(settings.vllm_model_dir),
        "APPLIANCE_VLLM_URL": settings.vllm_url,
    }
    return subprocess.run(
        [*COMMAND, *words],
        env=clean_environment(**variables) | more,
        capture_output=True,
        text=True,
    )


def test_the_process_becomes_vllm(vllm_settings: Callable[..., Settings], tmp_path: Path) -> None:
    """One process for the service manager, no parent in between."""
    chosen = vllm_settings()
    starting = subprocess.Popen(
        [*COMMAND, "vllm"],
        env=clean_environment(
            APPLIANCE_DATA_DIR=str(chosen.data_dir),
            APPLIANCE_VLLM_PYTHON=str(chosen.vllm_python),
            APPLIANCE_VLLM_MODEL_DIR=str(chosen.vllm_model_dir),
            HF_HUB_OFFLINE="0",
            KEPT="as it was",
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    said, _ = starting.communicate(timeout=60)
    pid, program, home, offline, kept, *words = said.splitlines()
    assert (starting.returncode, int(pid)) == (0, starting.pid)
    assert (home, offline, kept) == (str(tmp_path / "data" / "vllm"), "1", "as it was")
    assert (program, *words) == vllm.launch(chosen).command
    assert (tmp_path / "data" / "vllm").stat().st_mode & 0o777 == 0o700


def test_printing_starts_nothing(vllm_settings: Callable[..., Settings], tmp_path: Path) -> None:
    chosen = vllm_settings()
    done = cli(chosen, "vllm", "--print")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{vllm.launch(chosen)}\n"
    assert not (tmp_path / "data").exists()


def test_what_cannot_be_started_is_a_line_and_a_hint(
    vllm_settings: Callable[..., Settings],
) -> None:
    chosen = vllm_settings()
    assert chosen.vllm_python is not None
    chosen.vllm_python.with_name("vllm").unlink()
    for more in ({}, {"APPLIANCE_VLLM_MODEL_DIR": ""}, {"APPLIANCE_VLLM_URL": "http://10.0.0.1:1"}):
        done = cli(chosen, "vllm", **more)
        assert (done.returncode, done.stdout) == (1, "")
        error, hint = done.stderr.splitlines()
        assert error.startswith("error: ")
        assert hint.startswith("hint: ")


@pytest.mark.parametrize("backend", ["llamacpp", "vllm"])
def test_each_server_knows_whether_it_was_chosen(
    backend: str, vllm_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    chosen = vllm_settings(backend=backend)
    statuses = {words: cli(chosen, words, "--chosen").returncode for words in ("engine", "vllm")}
    assert statuses == {"engine": backend != "llamacpp", "vllm": backend != "vllm"}
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("backend", "server"), [("llamacpp", "engine"), ("vllm", "vllm")])
def test_up_starts_the_server_that_was_chosen(
    backend: str, server: str, vllm_settings: Callable[..., Settings]
) -> None:
    children = vars(Foreground(vllm_settings(backend=backend))).values()
    assert {getattr(child, "name", "") for child in children} >= {"api", server}


# --- its health -----------------------------------------------------------------------------------


@pytest.fixture
def answering() -> Iterator[Callable[..., str]]:
    """Start a server that answers so; its URL."""
    servers: list[HTTPServer] = []

    def start(answers: dict[str, tuple[int, str]]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answers[self.path]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                """Stay silent."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


MODELS = '{"object": "list", "data": [{"id": "llama-3.1-8b-instruct"}]}'


@pytest.mark.loopback
@pytest.mark.parametrize(
    ("answers", "health"),
    [
        (
            {"/health": (200, ""), "/v1/models": (200, MODELS)},
            {"status": "ok", "model": "llama-3.1-8b-instruct"},
        ),
        ({"/health": (503, "")}, {"status": "failed", "detail": "its /health answers 503"}),
        (
            {"/health": (200, ""), "/v1/models": (200, "<html>")},
            {"status": "failed", "detail": "something that is not vLLM answers"},
        ),
        (
            {"/health": (200, ""), "/v1/models": (200, "[]")},
            {"status": "failed", "detail": "something that is not vLLM answers"},
        ),
    ],
)
def test_what_it_says_of_itself(
    answers: dict[str, tuple[int, str]],
    health: dict[str, str],
    answering: Callable[..., str],
    vllm_settings: Callable[..., Settings],
) -> None:
    assert vllm.health(vllm_settings(vllm_url=answering(answers))) == health


@pytest.mark.loopback
def test_where_nobody_answers_nothing_is_said(vllm_settings: Callable[..., Settings]) -> None:
    assert vllm.health(vllm_settings(vllm_url=f"http://127.0.0.1:{free_port()}")) == {}


@pytest.mark.loopback
def test_the_doctor_asks_the_server_that_was_chosen(
    answering: Callable[..., str], vllm_settings: Callable[..., Settings]
) -> None:
    url = answering({"/health": (200, ""), "/v1/models": (200, MODELS)})
    for chosen, engine, state in (
        (vllm_settings(vllm_url=url), f"vLLM at {url} serves llama-3.1-8b-instruct", "ok"),
        (vllm_settings(vllm_url=f"http://127.0.0.1:{free_port()}"), "not running", "warn"),
    ):
        told = json.loads(cli(chosen, "doctor", "--json").stdout)
        findings = {finding["what"]: finding for finding in told["findings"]}
        assert (findings["engine"]["detail"], findings["engine"]["state"]) == (engine, state)
        assert findings["model"]["state"] == "ok"
    assert chosen.vllm_python is not None
    chosen.vllm_python.unlink()
    told = json.loads(cli(chosen, "doctor", "--json").stdout)
    findings = {finding["what"]: finding for finding in told["findings"]}
    assert findings["model"]["state"] == "bad"
    assert "APPLIANCE_VLLM_PYTHON" in findings["model"]["hint"]

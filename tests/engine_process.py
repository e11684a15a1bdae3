"""Fixtures: real engines as real processes, with the embedded weights.

The very first start, which makes and measures types of the weights, happens once a test session;
what it was seen to do is kept, and every other engine starts from hard links of its weights folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

MODEL = "smollm2-135m"
COMMAND = (sys.executable, "-m", "appliance.llm.engine")
PARENT = (sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])")
"""Runs the rest of the command line as its child."""
_PATIENCE = 280.0


def pytest_unconfigure() -> None:
    """Close what llama_cpp leaves open for ever, before it is reported as a leak of ours."""
    for name in ("outnull_file", "errnull_file"):
        file = getattr(sys.modules.get("llama_cpp._utils"), name, None)
        if file is not None:
            file.close()


class EngineProcess:
    """An engine that runs, or did."""

    def __init__(
        self,
        data_dir: Path,
        *,
        model: str = MODEL,
        environment: dict[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
        arguments: tuple[str, ...] = (),
        parent: bool = False,
    ) -> None:
        # Sockets end at 107 bytes: not in pytest's deep folders.
        self.folder = Path(tempfile.mkdtemp(prefix="engine-", dir="/tmp"))
        self.socket = self.folder / "engine.sock"
        self.data_dir = data_dir
        self.log = self.folder / "log"
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("APPLIANCE_")
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(PARENT if parent else ()),
                    *(*COMMAND, "--model", model, "--socket", str(self.socket)),
                    *arguments,
                ],
                env=inherited
                | {"APPLIANCE_DATA_DIR": str(data_dir), "APPLIANCE_RUNTIME_DIR": str(self.folder)}
                | (environment or {}),
                stderr=log,
                stdout=log,
                preexec_fn=prepare,
            )

    def client(self, timeout: float = 60.0) -> httpx.Client:
        """A client that talks to this engine only."""
        transport = httpx.HTTPTransport(uds=str(self.socket), trust_env=False)
        return httpx.Client(
            base_url="http://engine", transport=transport, timeout=timeout, trust_env=False
        )

    def health(self) -> dict[str, Any]:
        """What ``/health`` says; :class:`OSError` as long as nobody listens."""
        # Tried first: httpx's synchronous client leaves a socket open that could not connect.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.socket))
        with self.client(5.0) as client:
            body: dict[str, Any] = client.get("/health").json()
            return body

    def wait(
        self, until: str = "ok", *, watch: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        """Wait for a status of ``/health``."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                health = self.health()
            except OSError:
                time.sleep(0.01)
                continue
            if watch is not None:
                watch(health)
            if health["status"] == until:
                return
            assert health["status"] != "failed", health
            time.sleep(0.02)
        raise AssertionError(f"not {until} after {_PATIENCE} s: {self.log.read_text()}")

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """The log so far, or its lines of one event."""
        lines = [
            json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")
        ]
        return [line for line in lines if event is None or line["event"] == event]

    def complete(
        self, text: str, *, client: httpx.Client | None = None, **fields: Any
    ) -> httpx.Response:
        """Ask for a completion of one user message, greedy unless told otherwise."""
        body = {"messages": [{"role": "user", "content": text}], "temperature": 0, **fields}
        if client is not None:
            return client.post("/v1/chat/completions", json=body)
        with self.client() as own:
            return own.post("/v1/chat/completions", json=body)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(20)

    def clean(self) -> None:
        """End it whatever it is doing, and remove its folder."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def link_weights(weights_home: Path, data_dir: Path) -> None:
    """Give a data folder the weights of another, without copying a byte where the disk allows."""
    target = data_dir / "weights"
    target.mkdir(parents=True, exist_ok=True)
    for file in (weights_home / "weights").iterdir():
        try:
            os.link(file, target / file.name)
        except OSError:
            shutil.copy(file, target / file.name)


@pytest.fixture(scope="session")
def engine_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder after its first start; ``first-start.json`` holds what was seen meanwhile."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    home = shared / "engine-home"
    home.mkdir(exist_ok=True)
    seen = home / "first-start.json"
    with (shared / "engine-home.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not seen.exists():
            seen.write_text(json.dumps(_first_start(home)))
    yield home
    # pytest keeps the folders of three sessions; a quarter of a gigabyte each is not worth it.
    # Other workers may still start from this one.
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        shutil.rmtree(home / "weights")


def _first_start(home: Path) -> dict[str, Any]:
    started = time.monotonic()
    engine = EngineProcess(home)
    details: list[str] = []
    refused: list[dict[str, Any]] = []
    slowest = 0.0

    def watch(health: dict[str, Any]) -> None:
        nonlocal slowest
        before = time.monotonic()
        engine.health()
        slowest = max(slowest, time.monotonic() - before)
        if health["detail"] not in details:
            details.append(health["detail"])
        if health["status"] == "loading" and not refused:
            answer = engine.complete("Hello")
            refused.append(
                {
                    "status": answer.status_code,
                    "retry_after": answer.headers.get("retry-after"),
                    "body": answer.json(),
                }
            )

    try:
        engine.wait(watch=watch)
        return {
            "seconds": time.monotonic() - started,
            "details": details,
            "refused": refused,
            "slowest_health": slowest,
            "health": engine.health(),
            "measured": engine.lines("type measured"),
            "exit": engine.stop(),
        }
    finally:
        engine.clean()


@pytest.fixture(scope="session")
def engine(engine_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine that all tests share: leave it as you found it."""
    data_dir = tmp_path_factory.mktemp("engine-data")
    link_weights(engine_home, data_dir)
    running = EngineProcess(data_dir)
    try:
        running.wait()
        yield running
    finally:
        running.clean()
        shutil.rmtree(data_dir)


StartEngine = Callable[..., EngineProcess]


@pytest.fixture
def start_engine(engine_home: Path, tmp_path: Path) -> Iterator[StartEngine]:
    """Start engines of one's own, which are ended afterwards; see :class:`EngineProcess`."""
    running: list[EngineProcess] = []

    def start(*, weights: bool = True, wait: bool = True, **options: Any) -> EngineProcess:
        data_dir = tmp_path / f"data-{len(running)}"
        data_dir.mkdir()
        if weights:
            link_weights(engine_home, data_dir)
        engine = EngineProcess(data_dir, **options)
        running.append(engine)
        if wait:
            engine.wait()
        return engine

    yield start
    for engine in running:
        engine.clean()
        shutil.rmtree(engine.data_dir)

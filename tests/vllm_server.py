"""Fixture: a real vLLM with the embedded weights, started by ``appliance vllm``.

It lives in an environment of its own, ``.venv-vllm``, which ``./install.sh test --vllm`` makes: it
pins other versions than the appliance. The weights are turned into vLLM's form there once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from appliance.llm.catalog import EMBEDDED, Catalog
from appliance.llm.weights import digest
from tests.appliance_process import COMMAND, ROOT, clean_environment, free_port

ENVIRONMENT = ROOT / ".venv-vllm"
PYTHON = ENVIRONMENT / "bin" / "python"
PATIENCE = 400.0
"""Longest wait for it to load, in seconds; on two cores that are not busy it takes 30."""
SEQUENCES = 4
QUEUE = 4


@dataclass
class VllmServer:
    """One that runs. At most ``SEQUENCES + QUEUE`` requests are admitted."""

    url: str
    model: str
    log: Path
    process: subprocess.Popen[bytes]

    def metric(self, name: str) -> float:
        """A figure of ``/metrics``, summed up over its labels."""
        text = httpx.get(f"{self.url}/metrics", timeout=30.0, trust_env=False).text
        found = re.findall(rf"^{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE)
        assert found, f"{name} is not in /metrics"
        return sum(map(float, found))

    def token_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """What the server makes of messages before the model reads them."""
        answer = httpx.post(
            f"{self.url}/tokenize", json={"messages": messages}, timeout=30.0, trust_env=False
        )
        ids: list[int] = answer.raise_for_status().json()["tokens"]
        return ids


@pytest.fixture(scope="session")
def vllm_server() -> Iterator[VllmServer]:
    """A server that all tests of this process share: leave it as you found it."""
    if not PYTHON.exists():
        pytest.fail("there is no .venv-vllm: ./install.sh test --vllm makes it")
    folder = Path(tempfile.mkdtemp(prefix="vllm-", dir="/tmp"))
    url = f"http://127.0.0.1:{free_port()}"
    log = folder / "log"
    environment = clean_environment(
        APPLIANCE_DATA_DIR=str(folder / "data"),
        APPLIANCE_RUNTIME_DIR=str(folder / "run"),
        APPLIANCE_BACKEND="vllm",
        APPLIANCE_VLLM_URL=url,
        APPLIANCE_VLLM_PYTHON=str(PYTHON),
        APPLIANCE_VLLM_MODEL_DIR=str(converted_weights()),
        APPLIANCE_VLLM_EXTRA_ARGS=(
            f"--dtype=bfloat16 --max-num-seqs={SEQUENCES} --max-model-len=2048 --enforce-eager"
        ),
        APPLIANCE_ENGINE_QUEUE=str(QUEUE),
        VLLM_CPU_KVCACHE_SPACE="1",
        # Threads are left to it: it takes all cores but one. With all of them, other tests beside
        # it make its threads wait for one another, at a fifth of the speed.
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, "vllm"],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = VllmServer(url, EMBEDDED, log, process)
    try:
        _wait(server)
        yield server
    finally:
        _end(process)
        shutil.rmtree(folder)


def embedded_weights() -> Path:
    """The file that the package carries."""
    file = Catalog.load().entry(EMBEDDED).packaged_file()
    assert file is not None
    return file


def converted_weights() -> Path:
    """The embedded weights in vLLM's form; made when they are not there."""
    source = embedded_weights()
    target = ENVIRONMENT / "models" / digest(source)[:16]
    target.parent.mkdir(exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            partial = target.with_suffix(".part")
            shutil.rmtree(partial, ignore_errors=True)
            script = Path(__file__).with_name("gguf_to_hugging_face.py")
            done = subprocess.run(
                [PYTHON, script, source, partial],
                env=clean_environment(HF_HUB_OFFLINE="1"),
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            partial.rename(target)
    return target


def _wait(server: VllmServer) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if httpx.get(f"{server.url}/health", timeout=10.0, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        said = server.log.read_text(errors="replace")
        assert server.process.poll() is None, f"vLLM ended:\n{said}"
        assert time.monotonic() < deadline, f"vLLM did not load in {PATIENCE} s:\n{said}"
        time.sleep(0.5)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        sys.stderr.write("vLLM did not end when asked\n")
    finally:
        # Its engine and workers are processes of their own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

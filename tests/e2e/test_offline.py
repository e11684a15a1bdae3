"""Nothing leaves the machine: without a network, by the kernel's own record, and from inside."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.appliance_process import (
    COMMAND,
    FAQS,
    PATIENCE,
    ROOT,
    ApplianceProcess,
    clean_environment,
    give_prepared,
    processes_of,
)

# The first test of a session waits for the engine's first start.
pytestmark = [pytest.mark.loopback, pytest.mark.timeout(900)]

PASSWORD = "How do I reset my password?"
LOOPBACK = 'ip link set lo up && exec "$@"'


def give_up(reason: str) -> None:
    """Skip on a developer's machine, fail where the tools have to be."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def need(*tools: str) -> None:
    """Give up where one of these programs is missing."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        give_up(f"not installed: {', '.join(missing)}")


class Wrapped(ApplianceProcess):
    """An appliance each of whose commands runs behind another program, reached by its own socket
    file: its port may lie in a network of its own."""

    def __init__(self, prepared: Path) -> None:
        super().__init__(prepared)
        self.sockets = self.folder / "run"
        self.environment["APPLIANCE_RUNTIME_DIR"] = str(self.sockets)
        self.prefix: tuple[str, ...] = ()

    def cli(self, *arguments: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix, *COMMAND, *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    def readiness(self) -> tuple[int, dict[str, Any]]:
        path = str(self.sockets / "api.sock")
        try:
            # Tried first, because httpx's client leaves a socket open that could not connect.
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(path)
        except OSError:
            return 0, {}
        transport = httpx.HTTPTransport(uds=path)
        with httpx.Client(transport=transport, base_url="http://desk", timeout=60.0) as client:
            answer = client.get("/api/v1/ready")
            return answer.status_code, answer.json()

    def send_stop(self, number: int = signal.SIGINT) -> int:
        """To the appliance itself, whatever runs it."""
        assert self.process is not None
        up = " ".join((*COMMAND, "up"))
        (pid,) = [p for p, command in processes_of(self.data_dir).items() if command == up]
        os.kill(pid, number)
        status = self.process.wait(PATIENCE)
        self.process = None
        return status

    def work(self) -> None:
        """A working day: prepare, serve, answer, stop."""
        self.cli_json("db", "upgrade")
        assert self.cli_json("kb", "import", str(FAQS))["added"] == 30
        self.start(prefix=self.prefix)
        answer = self.cli_json("ask", PASSWORD)
        assert answer["metadata"]["outcome"] == "answered"
        assert "Forgot password" in answer["response"]
        streamed = self.cli("ask", "What is your refund policy?", "--stream")
        assert streamed.returncode == 0
        assert "14 days" in streamed.stdout
        assert self.cli_json("doctor")["well"] is True
        self.stop()


@pytest.fixture
def wrapped(prepared_home: Path) -> Iterator[Wrapped]:
    desk = Wrapped(prepared_home)
    yield desk
    desk.clean()


# --- without a network ----------------------------------------------------------------------------


def new_network() -> tuple[str, ...]:
    """What runs a command in a network of its own, in which there is nothing but a loopback."""
    need("unshare", "ip", "sh")
    for unshare in (("unshare", "--net"), ("unshare", "--map-root-user", "--net")):
        prefix = (*unshare, "sh", "-c", LOOPBACK, "sh")
        tried = subprocess.run([*prefix, "ip", "-o", "link"], capture_output=True, text=True)
        if tried.returncode == 0:
            links = re.findall(r"^\d+: (\w+)", tried.stdout, re.MULTILINE)
            assert links == ["lo"]
            return prefix
    give_up("this kernel or container gives no network of one's own")
    raise AssertionError


def test_it_works_without_a_network(wrapped: Wrapped) -> None:
    wrapped.prefix = new_network()
    wrapped.work()


# --- by the kernel's record -----------------------------------------------------------------------

CALLS = "connect,bind,sendto,sendmsg,sendmmsg"
HOME = re.compile(
    r"sa_family=(?:AF_UNIX|AF_UNSPEC|AF_NETLINK)"
    r'|sin_addr=inet_addr\("127\.\d+\.\d+\.\d+"\)'
    r'|inet_pton\(AF_INET6, "(?:::1|::ffff:127\.[\d.]+)"'
)


def tracer(file: Path) -> tuple[str, ...]:
    """What runs a command and records where it and its children reach for."""
    need("strace")
    return (
        "strace",
        "-f",
        "-q",
        "--seccomp-bpf",
        "-s",
        "0",
        "-e",
        f"trace={CALLS}",
        "-o",
        str(file),
    )


def leaving(trace: str) -> list[str]:
    """The lines of a record that name an address outside this machine."""
    named = [line for line in trace.splitlines() if "sa_family=" in line]
    # One line may hold several messages with an address each.
    return [line for line in named if line.count("sa_family=") > len(HOME.findall(line))]


def run_traced(prefix: Sequence[str], program: str) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-c", program]
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True)


def test_the_record_shows_who_reaches_out(tmp_path: Path) -> None:
    """That no line is found below means something only if one would be."""
    files = [tmp_path / "home", tmp_path / "away"]
    home = (
        "import socket, contextlib\n"
        "for family, kind, address in [\n"
        " (socket.AF_UNIX, socket.SOCK_STREAM, '/nowhere'),\n"
        " (socket.AF_INET, socket.SOCK_DGRAM, ('127.0.0.1', 9)),\n"
        "]:\n"
        " with socket.socket(family, kind) as s, contextlib.suppress(OSError):\n"
        "  s.connect(address)\n"
    )
    # Connecting UDP sends no packet; neither do a refused stream and an unreachable message.
    away = (
        "import socket, contextlib, subprocess, sys\n"
        "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:\n"
        " with contextlib.suppress(OSError): s.connect(('192.0.2.1', 53))\n"
        "if len(sys.argv) == 1:\n"
        " subprocess.run([sys.executable, '-c', "
        '"import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); '
        "s.connect_ex(('2001:db8::1', 53)); s.close()\"])\n"
    )
    for file, program in zip(files, (home, away), strict=True):
        done = run_traced(tracer(file), program)
        if not file.exists() or "ptrace" in done.stderr:
            give_up(f"strace may not trace here: {done.stderr}")
        assert done.returncode == 0, done.stderr
    traces = [file.read_text() for file in files]
    assert traces[0].count("sa_family=") >= 2
    assert leaving(traces[0]) == []
    found = leaving(traces[1])
    assert any("192.0.2.1" in line for line in found)
    assert any("2001:db8::1" in line for line in found)


def test_no_process_reaches_out(wrapped: Wrapped, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    wrapped.prefix = (*tracer(trace), "--output-append-mode")
    wrapped.work()
    recorded = trace.read_text()
    assert leaving(recorded) == []
    # The record is of the whole appliance: API, engine, command line.
    assert f"htons({wrapped.port})" in recorded
    assert "engine.sock" in recorded
    assert "api.sock" in recorded
    assert processes_of(wrapped.data_dir) == {}


# --- from inside ----------------------------------------------------------------------------------

INSIDE = """
import asyncio, json, sys

HOME = ("127.0.0.1", "::1")
reached = []

def watch(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"):
        connection, address = arguments
        if connection.family.name in ("AF_UNIX", "AF_NETLINK") or address is None:
            return
        if event == "socket.bind" and address[0] in HOME:
            return  # urllib3 tries whether this machine has IPv6, on the loopback
        reached.append([event, repr(address)])
        raise PermissionError("this test lets nobody out")
    if event.startswith("socket.get") and "host" in event or event == "socket.getaddrinfo":
        if event != "socket.gethostname":
            reached.append([event, repr(arguments[0])])
            raise PermissionError("this test lets nobody ask")

sys.addaudithook(watch)

from appliance.settings import enforce_offline, load_settings

enforce_offline()

import appliance.api.server
import appliance.cli.main
import appliance.llm.engine.runtime
import appliance.operations.engine_keeper
from appliance.bootstrap import Appliance
from appliance.llm.scripted import ScriptedModel
from appliance.services.access import OPERATOR
from appliance.services.answer_query import Ask


async def heard(event, data):
    pass


async def main():
    desk = Appliance(load_settings(), model=ScriptedModel())
    await desk.start()
    while not desk.is_ready:
        await asyncio.sleep(0.05)
    service = desk.ready.answer_query
    accepted = await service.accept(Ask("u", "How do I reset my password?"), OPERATOR)
    result = await service.start(accepted, heard, asyncio.Event())
    await desk.aclose()
    return result

result = asyncio.run(main())
print(json.dumps({"reached": reached, "response": result.response}))
"""


def test_its_own_code_never_tries(prepared_home: Path) -> None:
    """Every import and one query with the real embedding model, under a guard that refuses each
    address and each name, and remembers also the attempts that somebody swallowed."""
    desk = ApplianceProcess(None)
    try:
        give_prepared(prepared_home, desk.data_dir)
        desk.cli_json("db", "upgrade")
        desk.cli_json("kb", "import", str(FAQS))
        done = subprocess.run(
            [sys.executable, "-c", INSIDE],
            env=desk.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout.splitlines()[-1])
        assert seen["reached"] == []
        assert "Forgot password" in seen["response"]
    finally:
        desk.clean()


def test_the_shell_cannot_switch_the_network_on() -> None:
    """What a library would obey is overridden before the library is loaded."""
    environment = clean_environment(
        HF_HUB_OFFLINE="0", TRANSFORMERS_OFFLINE="0", LANGSMITH_TRACING="true", DO_NOT_TRACK="0"
    )
    program = (
        "import json, os\n"
        "from appliance.cli.output import prepare\n"
        "prepare('up')\n"
        "names = ('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE', 'LANGSMITH_TRACING', 'DO_NOT_TRACK')\n"
        "print(json.dumps([os.environ[name] for name in names]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert json.loads(done.stdout) == ["1", "1", "false", "1"], done.stderr

"""Nothing leaves: by systemd's own sandboxes, and with somebody at the other end of the cable."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.operations.doctor.inventory import Process, name_of
from appliance.operations.silence.knocking import ADDRESSES, Attempt, name_servers
from appliance.operations.silence.sockets import sockets
from appliance.operations.silence.units import judge
from tests.appliance_process import ROOT, ApplianceProcess
from tests.install.machine import Machine, booted, give_up, world

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]

UNITS = ("api", "engine", "worker", "vllm", "backup")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with booted(tmp_path_factory.mktemp("machine")) as made:
        yield made


def proven(machine: Machine) -> tuple[int, dict[str, Any]]:
    """The exit status and what was found, by the unit's short name."""
    done = machine.appliance("doctor", "--prove-offline", "--json", user=False)
    told = json.loads(done.stdout)
    assert told["remote"].startswith("off")
    found = {
        proof["unit"].removeprefix("appliance-")[: -len(".service")]: proof
        for proof in told["units"]
    }
    assert tuple(found) == UNITS
    return done.returncode, found


def test_every_unit_is_refused_and_one_that_is_opened_is_seen_to_leak(machine: Machine) -> None:
    with world(machine):
        _, found = proven(machine)
        assert {name: proof["verdict"] for name, proof in found.items() if name != "api"} == {
            "engine": "refused",
            "worker": "refused",
            "vllm": "refused",
            "backup": "refused",
        }
        # The packet filter of the unit, not a missing route: somebody is there.
        away = [a for a in found["api"]["attempts"] if a["address"] in ADDRESSES]
        assert {a["verdict"] for a in away} == {"refused"}
        assert "EPERM" in {a["found"] for a in away if a["way"] == "udp"}
        assert {a["found"] for a in found["engine"]["attempts"]} == {"EAFNOSUPPORT"}

        machine.drop_in("appliance-worker.service", "[Service]\nIPAddressAllow=any\n")
        status, found = proven(machine)
        assert status == 1
        assert found["worker"]["verdict"] == "LEAK"
        assert "192.0.2.1" in found["worker"]["how"]
        assert found["engine"]["verdict"] == "refused"
    left = machine.run("sh", "-c", "ls /run/systemd/system /run | grep silence").stdout
    assert left == ""


def test_only_root_enters_a_sandbox(machine: Machine) -> None:
    done = machine.appliance("doctor", "--prove-offline", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert {proof["verdict"] for proof in told["units"]} == {"unproven"}
    assert "root" in told["units"][0]["how"]


@pytest.mark.full
def test_the_units_serve_an_answer_in_their_sandboxes(
    prepared_home: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """API, engine and worker as systemd runs them, from nothing to a grounded answer."""
    with booted(tmp_path, data=prepared_home) as machine:
        key = "/etc/appliance/credentials/remote.key"
        machine.run("sh", "-c", f"echo gsk-secret > {key} && chmod 600 {key}")
        for words in (("db", "upgrade"), ("kb", "import", "/opt/appliance/current/kb/faqs.json")):
            done = machine.appliance(*words)
            assert done.returncode == 0, done.stderr
        machine.start("appliance-engine.service", "appliance-worker.service")
        machine.start("appliance-api.service")
        done = machine.appliance("ask", "How do I reset my password?", "--json")
        assert done.returncode == 0, done.stderr + machine.logs()
        assert "Forgot password" in json.loads(done.stdout)["response"]
        # Its own unit reads the credential; nobody else does, not even under its name.
        main = machine.shown("appliance-api.service", "MainPID")
        inside = "/run/credentials/appliance-api.service/remote.key"
        read = machine.run("nsenter", f"--target={main}", "--mount", "cat", inside)
        assert read.stdout == "gsk-secret\n"
        other = machine.shown("appliance-worker.service", "MainPID")
        read = machine.run("nsenter", f"--target={other}", "--mount", "cat", inside)
        assert read.stdout == ""
        report = json.loads(machine.appliance("doctor", "--json", user=False).stdout)
        states = {f["what"]: f["state"] for f in report["findings"]}
        assert states["units"] == states["engine"] == states["api"] == states["worker"] == "ok"
        _, found = proven(machine)
        assert set(found["worker"]["accounted"]) == {"IPIngressBytes", "IPEgressBytes"}
        for unit in ("engine", "worker", "api"):
            assert machine.shown(f"appliance-{unit}.service", "NRestarts") == "0"


# --- what counts ----------------------------------------------------------------------------------


def test_silence_is_no_refusal() -> None:
    refused = Attempt("udp", "192.0.2.1", "refused", "EPERM")
    silent = Attempt("tcp", "192.0.2.1", "unproven", "silence")
    leak = Attempt("tcp", "192.0.2.1", "LEAK", "connected")
    assert judge([refused])[0] == "refused"
    assert judge([refused, silent])[0] == "unproven"
    assert judge([silent, leak, refused])[0] == "LEAK"
    assert judge([])[0] == "unproven"


def test_without_a_network_everything_is_refused() -> None:
    program = "from appliance.cli.main import main; main()"
    command = ["unshare", "--net", sys.executable, "-c", program, "doctor", "--knock"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError as error:
        give_up(str(error))
    if "unshare" in done.stderr:
        give_up(done.stderr)
    attempts = json.loads(done.stdout)
    tried = {(a["way"], a["address"]) for a in attempts}
    assert {(way, address) for way in ("tcp", "udp") for address in ADDRESSES} <= tried
    assert {a["verdict"] for a in attempts} == {"refused"}


def test_name_servers_are_read(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# nameserver 1.1.1.1\nnameserver 10.0.0.53\nnameserver ::1\nnameserver x\n")
    assert name_servers(file) == ["10.0.0.53", "::1"]
    assert name_servers(tmp_path / "none") == []


def test_sockets_are_told_by_process(appliance: ApplianceProcess) -> None:
    found = sockets([Process(appliance.api, "api", 0)])
    (listening,) = [s for s in found if s.state == "listening"]
    assert listening.local == f"127.0.0.1:{appliance.port}"
    assert listening.reach == "this machine"
    assert sockets([Process(appliance.engine, "model", 0)]) == []
    told = appliance.cli("doctor", "--prove-offline")
    assert told.returncode == 1  # no sandbox here
    assert told.stdout.startswith("Remote backend off")
    assert "unproven" in told.stdout
    assert f"127.0.0.1:{appliance.port}" in told.stdout


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/x/python -m appliance api", "api"),
        ("/x/python /o/.venv/bin/appliance worker ", "worker"),
        ("/x/python -m appliance.llm.engine --model m --socket s", "model"),
        ("/x/python -m appliance ask api", None),
        ("vi appliance api.py", None),
    ],
)
def test_processes_are_known_by_their_command(command: str, name: str | None) -> None:
    assert name_of(command) == name

"""The systemd units, as systemd itself reads them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.cli.main import cli
from appliance.domain.policy import WEBHOOK_SWEEP_SECONDS
from appliance.jobs.consuming import STOP_SECONDS as QUEUE_STOP_SECONDS
from appliance.settings import CREDENTIALS, Settings
from appliance.worker import STOP_SECONDS
from tests.appliance_process import ROOT

UNITS = sorted((ROOT / "systemd").glob("*.service"))
OURS = [unit for unit in UNITS if "/bin/appliance " in unit.read_text(encoding="utf-8")]
"""Units that start the appliance's own command; others bring programs of other people."""

VLLM = ROOT / "systemd" / "appliance-vllm.service"
"""Starts a command of ours that becomes a program of other people."""

BACKUP = ROOT / "systemd" / "appliance-backup.service"
"""Runs to its end each night; its timer watches it."""

RECOVER = ROOT / "systemd" / "appliance-recover.service"
"""Runs as root before the others, where an upgrade was cut off: it may put anything back."""

PREFIX = Path("/opt/appliance/current")


@pytest.fixture(autouse=True)
def systemd_analyze() -> None:
    if shutil.which("systemd-analyze") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no systemd-analyze")


def settings_of(unit: Path) -> dict[str, list[str]]:
    """The settings of a unit, whatever section they stand in."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def staged(folder: Path) -> dict[str, Path]:
    """Every unit in a folder of its own, with the programs they start put beside them."""
    units = folder / "units"
    units.mkdir()
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8")
        for program in set(re.findall(r"^Exec\w+=[-@:+!]*(\S+)", text, re.MULTILINE)):
            there = folder / Path(program).relative_to("/")
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_text("#!/bin/sh\n")
            there.chmod(0o755)
            text = text.replace(program, str(there))
        (units / unit.name).write_text(text, encoding="utf-8")
    return {path.name: path for path in units.iterdir()}


def verify(unit: Path) -> tuple[int, str]:
    """The verdict of systemd-analyze, which finds the other units beside this one."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{unit.parent}:"},
        capture_output=True,
        text=True,
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def test_there_are_units() -> None:
    assert {"appliance-api.service", "appliance-engine.service"} <= {unit.name for unit in UNITS}


@pytest.mark.parametrize("name", [unit.name for unit in UNITS])
def test_systemd_has_nothing_to_say(name: str, tmp_path: Path) -> None:
    assert verify(staged(tmp_path)[name]) == (0, "")


@pytest.mark.parametrize("name", [unit.name for unit in UNITS])
@pytest.mark.parametrize(
    ("pattern", "replacement", "says"),
    [
        (r"^(ExecStart=)\S+", r"\1/nowhere/appliance", "/nowhere/appliance"),
        (r"^Restart=.*", "Restart=perhaps", "perhaps"),
        (r"^\[Service\]", "[Service]\nProtectSytem=strict", "ProtectSytem"),
    ],
    ids=["missing program", "wrong value", "misspelt setting"],
)
def test_systemd_would_say_it(
    name: str, pattern: str, replacement: str, says: str, tmp_path: Path
) -> None:
    """That nothing is said above means something only if this is."""
    unit = staged(tmp_path)[name]
    text, changed = re.subn(pattern, replacement, unit.read_text(), flags=re.MULTILINE)
    assert changed == 1
    unit.write_text(text)
    status, said = verify(unit)
    assert status != 0
    assert says in said


@pytest.mark.parametrize("unit", OURS, ids=lambda unit: unit.name)
def test_units_start_commands_that_exist(unit: Path) -> None:
    found = settings_of(unit)
    for line in (*found["ExecStart"], *found.get("ExecCondition", ())):
        program, *words = shlex.split(line)
        assert Path(program) == PREFIX / ".venv" / "bin" / "appliance"
        with cli.make_context("appliance", list(words), resilient_parsing=True) as context:
            name, command, rest = cli.resolve_command(context, words)
        assert command is not None
        command.make_context(name, rest, resilient_parsing=False).close()


@pytest.mark.parametrize("unit", [u for u in OURS if u != RECOVER], ids=lambda unit: unit.name)
def test_units_run_as_a_user_who_may_do_little(unit: Path) -> None:
    found = settings_of(unit)
    assert found["User"] == ["appliance"]
    assert found["NoNewPrivileges"] == ["yes"]
    assert found["ProtectSystem"] == ["strict"]
    assert found["ProtectHome"] == ["yes"]
    assert found["UMask"] == ["0077"]
    # What the settings take for an installation: /var/lib/appliance and /run/appliance.
    assert found["StateDirectory"] == ["appliance"]
    assert found["RuntimeDirectory"] == ["appliance"]


@pytest.mark.parametrize(
    "unit", [u for u in OURS if u not in (VLLM, BACKUP, RECOVER)], ids=lambda unit: unit.name
)
def test_units_are_watched(unit: Path) -> None:
    """That they speak sd_notify is shown in tests/e2e/test_desk.py."""
    found = settings_of(unit)
    assert found["Type"] == ["notify"]
    assert found["WatchdogSec"]
    assert found["Restart"] in (["always"], ["on-failure"])


def test_nobody_meets_half_an_upgrade() -> None:
    found = settings_of(RECOVER)
    assert found["ConditionPathExists"] == ["/var/lib/appliance-release/journal.json"]
    services = {unit.name for unit in UNITS if "ExecCondition" in settings_of(unit)}
    services |= {"appliance-api.service", "appliance-worker.service"}
    assert services <= set(found["Before"][0].split())
    assert found["Type"] == ["oneshot"]
    # The link, the settings, the units and the data: all that an upgrade changes.
    assert set(found["ReadWritePaths"][0].split()) == {
        "/opt/appliance",
        "/etc/appliance",
        "/etc/systemd/system",
        "/var/lib/appliance",
        "/var/lib/appliance-release",
    }


def test_what_parses_weights_reaches_nothing() -> None:
    found = settings_of(ROOT / "systemd" / "appliance-engine.service")
    assert found["PrivateNetwork"] == ["yes"]
    assert found["RestrictAddressFamilies"] == ["AF_UNIX"]


def test_the_desk_starts_without_its_engine() -> None:
    found = settings_of(ROOT / "systemd" / "appliance-api.service")
    assert "Requires" not in found
    assert "BindsTo" not in found
    assert "appliance-engine.service" in " ".join(found["After"])
    assert "appliance-engine.service" in " ".join(found["Wants"])


def test_vllm_reaches_this_machine_and_its_gpus_only() -> None:
    found = settings_of(VLLM)
    assert (found["IPAddressDeny"], found["IPAddressAllow"]) == (["any"], ["localhost"])
    assert "AF_INET" in found["RestrictAddressFamilies"][0].split()
    assert "AF_PACKET" not in found["RestrictAddressFamilies"][0].split()
    # Either of them would take the GPUs away or the fence around them.
    assert "PrivateDevices" not in found
    assert found["DevicePolicy"] == ["closed"]
    assert "char-nvidia* rw" in found["DeviceAllow"]
    assert not any(re.search(r"/dev/|\*$|char-\*", allowed) for allowed in found["DeviceAllow"])


def test_vllm_runs_only_where_it_was_chosen() -> None:
    found = settings_of(VLLM)
    assert found["ExecCondition"] == [f"{found['ExecStart'][0]} --chosen"]
    # It cannot say that it is ready, so nothing may wait for that.
    assert found["Type"] == ["exec"]
    assert found["Restart"] == ["always"]
    assert "WatchdogSec" not in found


WORKER = ROOT / "systemd" / "appliance-worker.service"


def test_the_worker_may_finish_what_it_began() -> None:
    found = settings_of(WORKER)
    assert found["KillSignal"] == ["SIGTERM"]
    assert float(found["TimeoutStopSec"][0]) > STOP_SECONDS + QUEUE_STOP_SECONDS
    # Longer than an attempt may take, or an order to stop would always cut some off.
    assert Settings.model_fields["webhook_timeout"].default < STOP_SECONDS
    assert float(found["WatchdogSec"][0]) > 2 * WEBHOOK_SWEEP_SECONDS


@pytest.mark.parametrize(
    ("name", "exposure"), [("api", 1.5), ("worker", 1.5), ("engine", 0.6), ("vllm", 2.0)]
)
def test_units_are_fenced_in_by_systemds_own_measure(name: str, exposure: float) -> None:
    """Its scale ends at 10; as programs of other people come, the database has 9.6."""

    def scored(threshold: float) -> subprocess.CompletedProcess[str]:
        unit = ROOT / "systemd" / f"appliance-{name}.service"
        limit = f"--threshold={round(threshold * 10)}"
        command = ["systemd-analyze", "security", "--offline=true", limit, unit]
        return subprocess.run(command, capture_output=True, text=True)

    done = scored(exposure)
    assert done.returncode == 0, done.stdout
    assert scored(0.1).returncode != 0


TARGET = ROOT / "systemd" / "appliance.target"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_target_is_the_whole_desk(unit: Path) -> None:
    found = settings_of(unit)
    if "WantedBy" not in found:
        return  # what a timer starts
    # What mends an upgrade is the boot's: an upgrade starts the target, and would meet it.
    boot = unit == RECOVER
    assert found["WantedBy"] == ["multi-user.target" if boot else "appliance.target"]
    assert found.get("PartOf", []) == ([] if boot else ["appliance.target"])
    assert unit.name not in " ".join(settings_of(TARGET).get("Wants", []))
    assert unit.name in settings_of(TARGET)["Also"][0].split()


@pytest.mark.parametrize("unit", OURS, ids=lambda unit: unit.name)
def test_a_credential_that_is_missing_is_empty(unit: Path) -> None:
    """Without a default a missing file would keep the unit from starting."""
    found = settings_of(unit)
    loaded = [line.partition(":")[0] for line in found.get("LoadCredential", ())]
    assert found.get("SetCredential", []) == [f"{name}:\\n" for name in loaded]
    assert set(loaded) <= set(CREDENTIALS.values())


@pytest.mark.parametrize("unit", OURS, ids=lambda unit: unit.name)
def test_units_end_somewhere(unit: Path) -> None:
    found = settings_of(unit)
    assert found["MemoryMax"]
    assert found["TasksMax"]
    assert found["LimitNOFILE"]
    assert found["IPAccounting"] == ["yes"]
    assert found["IPAddressDeny"] == ["any"]

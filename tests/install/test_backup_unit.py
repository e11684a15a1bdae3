"""The nightly backup's service and timer, as systemd reads them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.appliance_process import ROOT
from tests.install.test_units import settings_of

SERVICE = ROOT / "systemd" / "appliance-backup.service"
TIMER = ROOT / "systemd" / "appliance-backup.timer"


@pytest.fixture(autouse=True)
def systemd_analyze() -> None:
    if shutil.which("systemd-analyze") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no systemd-analyze")


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True)


def test_the_backup_is_fenced_in_by_systemds_own_measure() -> None:
    done = analyze("security", "--offline=true", "--threshold=15", SERVICE)
    assert done.returncode == 0, done.stdout


def test_the_backup_runs_to_its_end_and_steps_aside() -> None:
    found = settings_of(SERVICE)
    assert found["Type"] == ["oneshot"]
    assert found["ExecStart"][0].endswith("appliance db backup --scheduled")
    assert found["IOSchedulingClass"] == ["idle"]
    assert int(found["Nice"][0]) > 0
    # As the worker has it: a database on a server has a password.
    worker = settings_of(ROOT / "systemd" / "appliance-worker.service")
    assert found["LoadCredential"] == worker["LoadCredential"]
    assert found["SetCredential"] == worker["SetCredential"]
    # Its timer starts it, not the machine.
    assert "WantedBy" not in found


def test_systemd_has_nothing_to_say_of_the_timer(tmp_path: Path) -> None:
    program = tmp_path / "appliance"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = SERVICE.read_text().replace("/opt/appliance/current/.venv/bin/appliance", str(program))
    (tmp_path / SERVICE.name).write_text(text)
    timer = tmp_path / TIMER.name
    shutil.copy(TIMER, timer)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", timer],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_timer_names_an_hour_and_makes_up_for_a_missed_one() -> None:
    found = settings_of(TIMER)
    assert found["Persistent"] == ["yes"]
    assert found["WantedBy"] == ["timers.target"]
    calendar = analyze("calendar", found["OnCalendar"][0])
    assert calendar.returncode == 0, calendar.stderr

"""The systemd units, verified without systemd running, on a staged tree."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.cli.main import cli
from appliance.settings import HOME

UNITS = sorted((HOME / "systemd").glob("*.service"))


@pytest.fixture(scope="module", autouse=True)
def _systemd_analyze() -> None:
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze is missing; .ci/run installs it")
        pytest.skip("systemd-analyze is not installed")


def staged(root: Path, *, with_program: bool) -> list[Path]:
    """The units as they lie on a server, with /opt moved below ``root``."""
    program = root / "opt/appliance/current/.venv/bin/appliance"
    program.parent.mkdir(parents=True)
    if with_program:
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    folder = root / "etc/systemd/system"
    folder.mkdir(parents=True)
    units = []
    for unit in UNITS:
        target = folder / unit.name
        target.write_text(unit.read_text().replace("=/opt/", f"={root}/opt/"))
        units.append(target)
    return units


def verify(units: list[Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "verify", *map(str, units)], capture_output=True, text=True, timeout=60
    )


def test_there_is_a_unit_for_each_process() -> None:
    assert {unit.name for unit in UNITS} >= {"appliance-api.service", "appliance-engine.service"}


def test_the_units_are_clean(tmp_path: Path) -> None:
    done = verify(staged(tmp_path, with_program=True))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_missing_program_is_noticed(tmp_path: Path) -> None:
    done = verify(staged(tmp_path, with_program=False))
    assert "appliance" in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_a_command_there_is_and_speaks_to_systemd(unit: Path) -> None:
    lines = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line)
    assert lines["ExecStart"].split()[1] in cli.commands
    assert lines["Type"] == "notify"
    assert int(lines["WatchdogSec"]) > 0


def test_the_engine_has_no_network() -> None:
    text = (HOME / "systemd/appliance-engine.service").read_text()
    assert "PrivateNetwork=yes" in text
    assert "RestrictAddressFamilies=AF_UNIX" in text

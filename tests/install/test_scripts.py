"""install.sh and .ci/run: clean, and clear about what they take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from appliance.settings import HOME

SCRIPTS = [HOME / "install.sh", HOME / ".ci/run"]


def install(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HOME / "install.sh"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shellcheck_is_content(script: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_can_be_run(script: Path) -> None:
    assert script.stat().st_mode & 0o111


def test_help_tells_the_verbs() -> None:
    for arguments in ((), ("help",), ("--help",)):
        done = install(*arguments)
        assert done.returncode == 0
        assert "demo" in done.stdout
        assert "test [--full]" in done.stdout


@pytest.mark.parametrize("arguments", [("install-everything",), ("demo", "now")])
def test_wrong_usage_is_said_and_ends_with_2(arguments: tuple[str, ...]) -> None:
    done = install(*arguments)
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "hint: " in done.stderr

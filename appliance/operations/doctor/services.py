"""The units as systemd has them, asked by its own command. Nothing where systemd is not running."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

UNITS: Final = tuple(
    f"appliance-{name}.service" for name in ("api", "engine", "worker", "vllm", "backup")
)
ASK_SECONDS: Final = 2.0
"""Longest one of systemd's commands may take."""


def systemd_is_running() -> bool:
    """Whether systemd is this machine's service manager; its own test (sd_booted)."""
    return Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None


def ask(*words: str, seconds: float = ASK_SECONDS) -> str | None:
    """What a command printed; None where it is missing, fails or takes too long."""
    program = shutil.which(words[0])
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command of systemd's
            [program, *words[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def shown(unit: str, names: Sequence[str]) -> dict[str, str]:
    """Properties of a unit; empty where systemd does not answer."""
    if not systemd_is_running():
        return {}
    told = ask("systemctl", "show", unit, *(f"--property={name}" for name in names)) or ""
    return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)


def installed() -> list[str]:
    """Our units that systemd knows."""
    return [unit for unit in UNITS if shown(unit, ["LoadState"]).get("LoadState") == "loaded"]

"""Which software this is, by what it was configured, and the units that run it."""

from __future__ import annotations

import filecmp
import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Final

from appliance import __version__
from appliance.errors import SettingsError
from appliance.operations.doctor.finding import Finding
from appliance.operations.doctor.services import installed, shown, systemd_is_running
from appliance.settings import HOME, config_file, unknown_variables
from appliance.storage import migrate

RESTARTS_WARN: Final = 3
"""Restarts of a unit since it was started, above which somebody should read its log."""


def version() -> list[Finding]:
    """Product, schema, engine, Python and system."""
    parts = [
        __version__,
        f"schema {migrate.head()}",
        f"llama.cpp by llama-cpp-python {_version_of('llama_cpp_python')}",
        f"Python {platform.python_version()}",
        _system(),
    ]
    return [Finding("version", "ok", ", ".join(parts))]


def configuration() -> list[Finding]:
    """Where the settings come from, and what in them is none."""
    unknown = unknown_variables()
    if unknown:
        detail = f"{', '.join(unknown)} is no setting."
        return [Finding("configuration", "warn", detail, "Correct or unset it.")]
    try:
        found = config_file()
    except SettingsError as error:
        return [Finding("configuration", "bad", error.detail, error.hint)]
    if found is not None and found.stat().st_mode & 0o022:
        return [
            Finding(
                "configuration",
                "bad",
                f"{found} can be changed by other users.",
                f"Run 'chmod 640 {found}'.",
            )
        ]
    return [Finding("configuration", "ok", str(found or "defaults and environment"))]


def units() -> list[Finding]:
    """How the units are: running, restarted, edited."""
    if not systemd_is_running():
        return [Finding("units", "ok", "systemd does not run this appliance")]
    known = installed()
    if not known:
        return [Finding("units", "ok", "none installed")]
    findings, states = [], []
    for unit in known:
        names = ("ActiveState", "NRestarts", "FragmentPath", "DropInPaths", "ConditionResult")
        seen = shown(unit, names)
        states.append(f"{_short(unit)} {seen.get('ActiveState', 'unknown')}")
        findings += _unit(unit, seen)
    return [Finding("units", "ok", ", ".join(states)), *findings]


def _unit(unit: str, seen: dict[str, str]) -> list[Finding]:
    findings = []
    if seen.get("ActiveState") == "failed":
        hint = f"Read 'journalctl -u {unit} -n 50', then 'systemctl restart {unit}'."
        findings.append(Finding("units", "bad", f"{unit} failed", hint))
    if int(seen.get("NRestarts") or 0) > RESTARTS_WARN:
        detail = f"{unit} was restarted {seen['NRestarts']} times"
        findings.append(Finding("units", "warn", detail, f"Read 'journalctl -u {unit}'."))
    ours, theirs = HOME / "systemd" / unit, Path(seen.get("FragmentPath") or "/nowhere")
    if ours.is_file() and theirs.is_file() and not filecmp.cmp(ours, theirs, shallow=False):
        hint = "An upgrade replaces it: move the change to a drop-in with 'systemctl edit'."
        findings.append(Finding("units", "warn", f"{theirs} differs from the release's", hint))
    if local := seen.get("DropInPaths"):
        findings.append(Finding("units", "ok", f"{_short(unit)} has local changes: {local}"))
    return findings


def _short(unit: str) -> str:
    return unit.removeprefix("appliance-").removesuffix(".service")


def _version_of(package: str) -> str:
    try:
        return package_version(package)
    except PackageNotFoundError:
        return "not installed"


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform(terse=True)

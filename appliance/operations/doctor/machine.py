"""Folders, disk and memory: what the machine has left, and for how long."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from appliance.errors import ApplianceError
from appliance.operations.doctor.finding import Finding, State, bad
from appliance.operations.doctor.inventory import Process, processes
from appliance.settings import Settings, ensure_folders, handed_over

DISK_WARN_BYTES: Final = 2 * 2**30
DISK_BAD_BYTES: Final = 256 * 2**20
MEMORY_WARN: Final = 0.10
"""Share of the machine's memory that should stay available."""
MEMORY_BAD: Final = 0.03
PRIVATE: Final = ("appliance.db", "secrets", "backup.json")
"""In the data folder, what nobody else may read."""


def folders(settings: Settings) -> list[Finding]:
    """Whether the folders are there, ours, and closed to others."""
    data = settings.data_dir
    if not data.is_dir():
        hint = "Run 'appliance db upgrade'."
        return [Finding("folders", "warn", f"{data} does not exist", hint)]
    try:
        # To root the folders are somebody else's, and that is as it should be.
        if settings.sockets.is_dir() and settings.sockets.stat().st_uid != data.stat().st_uid:
            detail = f"{settings.sockets} does not belong to whom {data} belongs."
            return [Finding("folders", "bad", detail, "Stop the appliance and remove it.")]
        if settings.sockets.is_dir() and data.stat().st_uid == os.getuid():
            ensure_folders(settings)
    except ApplianceError as error:
        return [bad("folders", error)]
    keys = (settings.tls_key_file, settings.remote_key_file, settings.database_password_file)
    given = [key for key in keys if key is not None]
    inside = [data / name for name in PRIVATE]
    inside += [key for key in given if key.is_relative_to(data)]
    secret = data / "secrets"
    if secret.is_dir():
        inside += list(secret.iterdir())
    if data.stat().st_mode & 0o077:  # below a closed folder modes decide nothing
        for path in inside:
            if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
                hint = f"Run 'chmod go= {path}'."
                return [Finding("folders", "bad", f"{path} can be read by other users.", hint)]
    for path in given:
        if not path.is_relative_to(data) and not handed_over(path) and _is_open(path):
            hint = f"Run 'chmod o= {path}'."
            return [Finding("folders", "bad", f"{path} can be read by other users.", hint)]
    return [Finding("folders", "ok", f"data {data}, sockets {settings.sockets}")]


def disk(settings: Settings) -> list[Finding]:
    """Free space where the data lie."""
    try:
        there = next(p for p in (settings.data_dir, *settings.data_dir.parents) if p.is_dir())
        free = shutil.disk_usage(there).free
    except OSError as error:
        detail = f"{settings.data_dir}: {error.strerror}."
        return [Finding("disk", "bad", detail, "Check the mount.")]
    detail = f"{free / 2**30:.1f} GiB free, data take {_taken(settings.data_dir) / 2**30:.2f} GiB"
    reserve = settings.disk_reserve_mib * 2**20
    if free < max(DISK_BAD_BYTES, reserve):
        hint = "Free space now: soon nothing can be stored."
        return [Finding("disk", "bad", detail, hint)]
    if free < DISK_WARN_BYTES:
        return [Finding("disk", "warn", detail, "Free space or enlarge the volume.")]
    return [Finding("disk", "ok", detail)]


def memory(settings: Settings | None = None) -> list[Finding]:
    """The machine's memory, and what each of our processes holds."""
    facts = {}
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        facts[name] = int(value.split()[0]) * 1024
    total, available = facts["MemTotal"], facts["MemAvailable"]
    ours = sorted(processes(settings), key=lambda process: -process.resident)
    held = ", ".join(_told(process) for process in ours)
    detail = f"{available / 2**30:.1f} of {total / 2**30:.1f} GiB available"
    state: State = "ok"
    if available < MEMORY_WARN * total:
        state = "bad" if available < MEMORY_BAD * total else "warn"
    hint = "Choose a smaller model or give the machine memory; see docs/operations.md."
    return [Finding("memory", state, f"{detail}; {held}" if held else detail, hint)]


def _is_open(file: Path) -> bool:
    """Whether everybody can reach a file that lies anywhere; a group, as root:appliance, may."""
    try:
        found = file.resolve(strict=True)
        reached = all(folder.stat().st_mode & stat.S_IXOTH for folder in found.parents)
        return reached and bool(found.stat().st_mode & stat.S_IRWXO)
    except OSError:
        return False  # not there, or behind a folder that is closed to this user as well


def _told(process: Process) -> str:
    return f"{process.name} {process.resident / 2**20:.0f} MiB"


def _taken(folder: Path) -> int:
    """Bytes on the disk below a folder; what cannot be read counts as nothing."""
    total = 0
    # Not rglob, which fails where a folder vanishes meanwhile (Python 3.11).
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_blocks * 512
    return total

"""The folder of backups: names, lists, and which of them may go."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from appliance.errors import BackupRefused, NotFound
from appliance.operations.backup.archive import Archive
from appliance.operations.backup.contents import BACKUPS
from appliance.operations.backup.manifest import Manifest
from appliance.operations.backup.standing import Rehearsed, Standing
from appliance.settings import Settings

PREFIX: Final = "appliance-backup-"
_NAME: Final = re.compile(rf"{PREFIX}\d{{8}}T\d{{6}}Z(-\d+)?\.tar")


@dataclass(frozen=True, slots=True)
class Listed:
    """A whole backup in a folder; ``size`` in bytes."""

    path: Path
    manifest: Manifest
    size: int
    rehearsed: Rehearsed | None


def default_folder(settings: Settings) -> Path:
    """Where backups lie unless a command names another place."""
    return settings.backup_dir or settings.data_dir / BACKUPS


def place(settings: Settings) -> str:
    """What tells this desk from another one that keeps its backups in the same folder."""
    where = f"{socket.gethostname()}:{settings.data_dir}"
    return hashlib.sha256(where.encode()).hexdigest()[:12]


def unused_name(folder: Path, at: datetime) -> Path:
    """A name by the time, in UTC, that nothing has yet."""
    stem = f"{PREFIX}{at:%Y%m%dT%H%M%SZ}"
    path, number = folder / f"{stem}.tar", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.tar"
    return path


def listed(folder: Path, standing: Standing) -> tuple[list[Listed], list[Path]]:
    """The backups of a folder, newest first, and what is named like one and cannot be read."""
    found, damaged = [], []
    for path in sorted(folder.glob("*.tar")) if folder.is_dir() else ():
        try:
            with Archive.open(path) as archive:
                manifest = archive.manifest
                size = path.stat().st_size
        except BackupRefused:
            if _NAME.fullmatch(path.name):
                damaged.append(path)
            continue
        found.append(Listed(path, manifest, size, standing.rehearsal_of(manifest.id)))
    return sorted(found, key=lambda each: each.manifest.created, reverse=True), damaged


def latest(settings: Settings, standing: Standing) -> Path:
    """The newest backup of the settings' folder.

    :raises NotFound: there is none.
    """
    found, _ = listed(default_folder(settings), standing)
    if not found:
        raise NotFound(
            f"There is no backup in {default_folder(settings)}.",
            hint="Make one: appliance db backup",
        )
    return found[0].path


def prune(
    settings: Settings,
    folder: Path,
    standing: Standing,
    *,
    scheduled: bool,
    newest: int,
    weekly: int = 0,
) -> list[Path]:
    """Remove old backups of this desk, of those made by the clock or of those made by hand; return
    which.

    :param newest: how many of the newest stay; by the clock, how many days' last ones.
    :param weekly: how many weeks' last ones stay besides.
    """
    ours = [
        each
        for each in listed(folder, standing)[0]
        if each.manifest.place == place(settings) and each.manifest.scheduled == scheduled
    ]
    kept = _kept_by_clock(ours, newest, weekly) if scheduled else ours[:newest]
    # However old: the one that is known to be restorable stays until a newer one is.
    proven = next((each for each in ours if each.rehearsed and each.rehearsed.sound), None)
    gone = [each.path for each in ours if each not in kept and each is not proven]
    for path in gone:
        path.unlink()
    if gone:
        sync(folder)
    return gone


def _kept_by_clock(newest_first: Sequence[Listed], days: int, weeks: int) -> list[Listed]:
    by_day = _first_of_each((f"{b.manifest.created:%Y-%m-%d}", b) for b in newest_first)
    by_week = _first_of_each((f"{b.manifest.created:%G-%V}", b) for b in newest_first)
    return [*by_day[:days], *by_week[:weeks]]


def _first_of_each(named: Iterable[tuple[str, Listed]]) -> list[Listed]:
    found: dict[str, Listed] = {}
    for name, backup in named:
        found.setdefault(name, backup)
    return list(found.values())


def sync(folder: Path) -> None:
    """Bring the folder's own entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

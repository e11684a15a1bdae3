"""When backups were last made and rehearsed, in a small file of the data folder: what the doctor
tells, and what retention and the weekly rehearsal go by."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from appliance.llm.weights import write_json
from appliance.operations.backup.contents import STATE_FILE
from appliance.settings import Settings

REHEARSALS_KEPT: Final = 100


class Made(msgspec.Struct, frozen=True):
    """A backup that was made. ``size`` in bytes, ``seconds`` is what it took."""

    id: str
    file: str
    at: datetime
    size: int
    seconds: float
    scheduled: bool


class Rehearsed(msgspec.Struct, frozen=True):
    """How restoring a backup for a trial went; ``findings`` is empty where it was sound."""

    id: str
    file: str
    at: datetime
    sound: bool
    findings: list[str]
    seconds: float


class Failed(msgspec.Struct, frozen=True):
    """The latest attempt, where it made no backup."""

    at: datetime
    detail: str


class Standing(msgspec.Struct, frozen=True):
    """``failed`` is None once a backup succeeded; ``rehearsals`` are the latest, oldest first."""

    last: Made | None = None
    failed: Failed | None = None
    rehearsals: list[Rehearsed] = []

    @property
    def rehearsed(self) -> Rehearsed | None:
        """The latest rehearsal."""
        return self.rehearsals[-1] if self.rehearsals else None

    def rehearsal_of(self, backup_id: str) -> Rehearsed | None:
        """The latest rehearsal of one backup."""
        return next((r for r in reversed(self.rehearsals) if r.id == backup_id), None)

    def sound_since(self) -> datetime | None:
        """When a rehearsal last went well."""
        return next((r.at for r in reversed(self.rehearsals) if r.sound), None)


def read(settings: Settings) -> Standing:
    """What was noted; nothing where the file is missing or damaged."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(_file(settings).read_bytes(), type=Standing)
    return Standing()


def note_made(settings: Settings, made: Made) -> None:
    """A backup was made."""
    write_json(_file(settings), msgspec.structs.replace(read(settings), last=made, failed=None))


def note_failed(settings: Settings, detail: str) -> None:
    """No backup was made. Where even that cannot be noted, the disk is the finding."""
    with contextlib.suppress(OSError):
        failed = Failed(datetime.now(UTC), detail)
        write_json(_file(settings), msgspec.structs.replace(read(settings), failed=failed))


def note_rehearsed(settings: Settings, rehearsed: Rehearsed) -> None:
    """A backup was restored for a trial."""
    standing = read(settings)
    kept = [*standing.rehearsals, rehearsed][-REHEARSALS_KEPT:]
    write_json(_file(settings), msgspec.structs.replace(standing, rehearsals=kept))


def _file(settings: Settings) -> Path:
    return settings.data_dir / STATE_FILE

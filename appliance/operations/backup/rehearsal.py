"""Rehearsing a restore: the whole of it, in a temporary place, and then comparing."""

from __future__ import annotations

import asyncio
import errno
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from appliance.errors import (
    ApplianceError,
    BackupRefused,
    BackupUnsuited,
    Conflict,
    NotFound,
    StorageFull,
    StorageUnavailable,
)
from appliance.logs import get_logger
from appliance.operations.backup import candidates, sealing, standing
from appliance.operations.backup.archive import Archive
from appliance.operations.backup.manifest import DATABASE, SECRETS, Manifest
from appliance.operations.locks import hold_lock
from appliance.services.answer_records import AnswerRecords, read_head
from appliance.services.audit import AuditLog
from appliance.settings import Settings
from appliance.storage import Database, migrate
from appliance.storage.engines import parse_url

log = get_logger()

FINDINGS_MAX: Final = 20
PLACE: Final = ".rehearsal-"
"""How the folders begin in which backups are restored for a trial."""
REHEARSED_EVERY: Final = timedelta(days=7)
"""How long a sound rehearsal is good for; then the next scheduled backup is rehearsed."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How it went. ``manifest`` is None where not even that could be read; ``revision`` is the form
    that the database was brought to, ``records`` counts the answer records that were verified."""

    path: Path
    manifest: Manifest | None
    sound: bool
    findings: list[str]
    revision: str | None
    records: int
    seconds: float


async def rehearse(
    settings: Settings, path: Path, *, passphrase: str | None = None, by: str = "operator"
) -> Rehearsal:
    """Restore a backup into a temporary place and compare it with what was backed up; note when and
    how it went. Nothing else changes.

    :raises NotFound: there is no such file.
    :raises BackupUnsuited: another passphrase, release or database is needed.
    :raises Conflict: another rehearsal is under way.
    :raises StorageFull: there is no room.
    :raises StorageUnavailable: the place of the rehearsal fails. None of these tells of the backup,
        and none is noted.
    """
    if not path.is_file():
        raise NotFound(f"There is no file {path}.", hint="See 'appliance db backups'.")
    rehearsal = await asyncio.to_thread(_rehearse, settings, path.absolute(), passphrase)
    manifest = rehearsal.manifest
    if manifest is not None and settings.data_dir.is_dir():
        noted = standing.Rehearsed(
            manifest.id,
            str(rehearsal.path),
            datetime.now(UTC),
            rehearsal.sound,
            rehearsal.findings,
            round(rehearsal.seconds, 3),
        )
        try:
            standing.note_rehearsed(settings, noted)
        except OSError as error:
            log.warning("rehearsal_not_noted", detail=error.strerror)
        await _note(settings, by, path.name, {"id": manifest.id, "sound": rehearsal.sound})
    return rehearsal


def _rehearse(settings: Settings, path: Path, passphrase: str | None) -> Rehearsal:
    started = time.monotonic()
    manifest, revision, records = None, None, 0
    findings: list[str] = []
    try:
        with Archive.open(path) as archive, workplace(settings) as folder:
            manifest = archive.manifest
            candidates.require_known(manifest)
            require_room(folder, manifest, settings.disk_reserve_mib * 2**20)
            members = archive.unpack(folder)
            if passphrase is not None and SECRETS in members:
                sealing.unseal(members[SECRETS].read_bytes(), passphrase, manifest.id)
            source = members[DATABASE[manifest.database]]
            with (
                staged(settings, manifest, source, candidates.TRIAL) as candidate,
                _said_by(manifest),
            ):
                findings = candidate.differences(manifest)
                if not findings:
                    migrate.upgrade(candidate.url)
                    revision = migrate.current(candidate.url)
                    records, findings = asyncio.run(verify_answers(candidate.url, manifest))
    except BackupUnsuited:
        raise
    except BackupRefused as error:
        findings = [error.detail]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("There is no room for a rehearsal.") from error
        raise StorageUnavailable(f"The rehearsal failed: {error.strerror}.") from error
    return Rehearsal(
        path,
        manifest,
        not findings,
        findings[:FINDINGS_MAX],
        revision,
        records,
        time.monotonic() - started,
    )


@contextmanager
def workplace(settings: Settings) -> Iterator[Path]:
    """A private folder for the time being, on the disk of the data where there is one. What a
    rehearsal that was killed left there is a whole database: it goes first.

    :raises Conflict: another rehearsal is under way.
    """
    near = settings.data_dir
    if not near.is_dir():
        with tempfile.TemporaryDirectory(prefix=PLACE) as folder:
            yield Path(folder)
        return
    with hold_lock(near / "rehearsal.lock") as free:
        if not free:
            raise Conflict(
                "A backup is being rehearsed right now.", hint="Try again when it is done."
            )
        for left in near.glob(f"{PLACE}*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=PLACE, dir=near) as folder:
            yield Path(folder)


def require_room(folder: Path, manifest: Manifest, spare: int = 0) -> None:
    """:raises StorageFull: unpacking there would leave less than ``spare`` bytes."""
    # The members, and the database once more for a migration that rebuilds its tables.
    needed, free = 2 * manifest.size + spare, shutil.disk_usage(folder).free
    if free < needed:
        raise StorageFull(
            f"Restoring needs {needed / 2**20:.0f} MiB in {folder}, "
            f"{free / 2**20:.0f} are free; nothing was changed.",
            hint="Free some space first.",
        )


@contextmanager
def _said_by(manifest: Manifest) -> Iterator[None]:
    """An SQLite database that cannot be used is the backup's own fault: there is no server."""
    try:
        yield
    except StorageFull:
        raise
    except StorageUnavailable as error:
        if manifest.database == "sqlite":
            raise BackupRefused(error.detail) from error
        raise


@contextmanager
def staged(
    settings: Settings, manifest: Manifest, source: Path, named: str = candidates.STAGED
) -> Iterator[candidates.SqliteCandidate | candidates.PostgresCandidate]:
    """The backup's database, restored beside the present one; on a server under one name for each
    use, so that a killed one leaves what the next one drops."""
    if manifest.database == "sqlite":
        with candidates.sqlite(source) as candidate:
            yield candidate
        return
    present = parse_url(settings.resolved_database_url)
    name = candidates.beside(present, named)
    with candidates.postgresql(settings, source, name) as server:
        yield server


async def verify_answers(url: str, manifest: Manifest) -> tuple[int, list[str]]:
    """Follow the chain of answer records from its beginning to where the manifest saw it end."""
    database = Database(url)
    try:
        expected = None if manifest.answers is None else read_head(manifest.answers)
        verdict = await AnswerRecords(database).verify(expect=expected)
    finally:
        await database.aclose()
    findings = [f"Answer record {f.record}: {f.detail}" for f in verdict.findings]
    return verdict.records, findings


async def _note(settings: Settings, by: str, target: str, details: dict[str, object]) -> None:
    database = Database(settings.resolved_database_url)
    try:
        await AuditLog(database).note(by, "db.verify", target, details)
    except ApplianceError as error:
        log.warning("rehearsal_not_noted", detail=error.detail)
    finally:
        await database.aclose()

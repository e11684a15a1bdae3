"""Making a backup while the desk serves.

Everything is gathered beside the target, written into one file under a passing name, brought to
the disk, and only then given its name: what has the name is whole.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from appliance import __version__
from appliance.errors import (
    ApplianceError,
    BackupFailed,
    Conflict,
    InvalidInput,
    NotMigrated,
    StorageFull,
)
from appliance.logs import get_logger
from appliance.operations.backup import archive, configuration, contents, sealing, standing
from appliance.operations.backup.folder import default_folder, place, sync, unused_name
from appliance.operations.backup.manifest import (
    DATABASE,
    FORMAT,
    PRODUCT,
    SECRETS,
    STATE,
    Kind,
    Manifest,
    Member,
    Table,
)
from appliance.operations.locks import hold_lock
from appliance.services.audit import AuditLog
from appliance.settings import Settings
from appliance.storage import Database, dumps, new_id, snapshots, whole
from appliance.storage.engines import parse_url, sqlite_file

log = get_logger()

ROOM_TO_SPARE: Final = 16 * 2**20
"""Bytes that have to stay free beside the backup."""
HEADS_SECONDS: Final = 30.0
"""Longest wait for heads that are being trained."""
HEADS_LOOK: Final = 0.1


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that lies at ``path``; ``seconds`` is what it took."""

    path: Path
    manifest: Manifest
    size: int
    seconds: float


async def make(
    settings: Settings,
    out: Path | None = None,
    *,
    passphrase: str | None = None,
    scheduled: bool = False,
    by: str = "operator",
) -> Backup:
    """Make a backup and note it in the audit log.

    :param out: a folder, or a file that does not exist; by default the settings' folder.
    :param passphrase: takes the secrets along, encrypted with it.
    :raises BackupFailed: there is no room, or the folder cannot be written.
    :raises Conflict: a backup is being made or restored right now, or the file exists.
    :raises StorageUnavailable: the database cannot be read.
    """
    try:
        made = await asyncio.to_thread(_make, settings, out, passphrase, scheduled)
    except ApplianceError as error:
        if not isinstance(error, Conflict | InvalidInput):
            standing.note_failed(settings, error.detail)
        raise
    manifest = made.manifest
    details = {
        "id": manifest.id,
        "bytes": made.size,
        "secrets": manifest.sealed,
        "scheduled": scheduled,
        "answers": manifest.answers,
    }
    await _note(settings, by, made.path.name, details)
    return made


def _make(settings: Settings, out: Path | None, passphrase: str | None, scheduled: bool) -> Backup:
    started = time.monotonic()
    folder, named = _target(settings, out)
    with _alone(settings), _told(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_room(settings, folder)
        mark = f".partial-{place(settings)}-"
        for left in folder.glob(f"{mark}*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=mark, dir=folder) as made:
            manifest, sources = _gather(settings, Path(made), passphrase, scheduled)
            whole = Path(made) / "backup.tar"
            archive.write(whole, manifest, sources)
            target = named or unused_name(folder, manifest.created)
            if target.exists():
                raise Conflict(f"{target} exists already.", hint="Name another file.")
            whole.rename(target)
            sync(folder)
        backup = Backup(target, manifest, target.stat().st_size, time.monotonic() - started)
        noted = standing.Made(
            manifest.id,
            str(target),
            manifest.created,
            backup.size,
            round(backup.seconds, 3),
            scheduled,
        )
        try:
            standing.note_made(settings, noted)
        except OSError as error:
            # The backup is there all the same, on a disk of its own.
            log.warning("backup_not_noted", detail=error.strerror)
    return backup


def _target(settings: Settings, out: Path | None) -> tuple[Path, Path | None]:
    """The folder, and the file in it where one was named."""
    if out is None:
        return default_folder(settings), None
    out = out.absolute()
    if out.is_dir():
        return out, None
    if out.exists():
        raise Conflict(f"{out} exists already.", hint="Name another file.")
    if not out.parent.is_dir():
        raise InvalidInput(f"There is no folder {out.parent}.", hint="Make it first.")
    return out.parent, out


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    if not settings.data_dir.is_dir():
        raise NotMigrated(f"There is no desk in {settings.data_dir}.")
    with hold_lock(settings.data_dir / contents.LOCK_FILE) as free:
        if not free:
            raise Conflict(
                "A backup is being made or restored right now.", hint="Try again when it is done."
            )
        yield


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Errors of the disk, as what they mean here."""
    try:
        yield
    except StorageFull as error:
        raise BackupFailed(f"The disk of {folder} is full.") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "is full" if full else f"cannot be written: {error.strerror}"
        raise BackupFailed(f"The disk of {folder} {what}.") from error


def _require_room(settings: Settings, folder: Path) -> None:
    """Before anything is written: a backup must not fill the disk that the desk writes to."""
    url = settings.resolved_database_url
    file = sqlite_file(parse_url(url))
    if file is None:
        database = whole.size(url)
    else:
        beside = [file, file.with_name(f"{file.name}-wal")]
        database = sum(path.stat().st_size for path in beside if path.exists())
    # The copy of the database, and the file that it goes into.
    needed = 2 * database + ROOM_TO_SPARE
    if folder.stat().st_dev == settings.data_dir.stat().st_dev:
        needed += settings.disk_reserve_mib * 2**20
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BackupFailed(
            f"The backup needs {needed / 2**20:.0f} MiB in {folder}, {free / 2**20:.0f} are free.",
            hint="Free some space, or set backup_dir to another disk. Earlier backups still are "
            "there.",
        )


def _gather(
    settings: Settings, folder: Path, passphrase: str | None, scheduled: bool
) -> tuple[Manifest, dict[str, Path]]:
    """Write or find every member; what the manifest says of them, and where they lie."""
    backup_id, created, sources = new_id(), datetime.now(UTC), dict[str, Path]()
    kind, facts = _database(settings, folder / "database", sources)
    for name, text in configuration.told_files(settings).items():
        sources[name] = _written(folder / name, text)
    with _settled_heads(settings):
        for name, path in contents.files(settings.data_dir, "saved"):
            copied = folder / f"state-{len(sources)}"
            shutil.copyfile(path, copied)
            sources[STATE + name] = copied
    if passphrase is not None:
        sealed = sealing.seal(configuration.secret_files(settings), passphrase, backup_id)
        sources[SECRETS] = _written(folder / SECRETS, sealed)
    manifest = Manifest(
        format=FORMAT,
        product=PRODUCT,
        version=__version__,
        id=backup_id,
        created=created,
        scheduled=scheduled,
        place=place(settings),
        database=kind,
        revision=facts.revision or "",
        tables={name: Table(each.rows, each.sha256) for name, each in facts.tables.items()},
        answers=facts.answers,
        serves=configuration.serves(settings),
        models=configuration.models(settings),
        secrets=configuration.fingerprints(settings),
        left_out=[name for name, _ in contents.files(settings.data_dir, None)],
        members=[
            Member(name, path.stat().st_size, archive.digest(path))
            for name, path in sources.items()
        ],
    )
    return manifest, sources


def _database(
    settings: Settings, target: Path, sources: dict[str, Path]
) -> tuple[Kind, snapshots.Facts]:
    url = parse_url(settings.resolved_database_url)
    file = sqlite_file(url)
    kind: Kind = "postgresql" if file is None else "sqlite"
    if file is None:
        facts = dumps.dump(url, target)
    else:
        snapshots.copy_sqlite(file, target)
        with snapshots.reading_copy(target) as copy:
            facts = snapshots.facts(copy)
    if facts.revision is None:
        raise NotMigrated("The database is not migrated: there is nothing to back up.")
    sources[DATABASE[kind]] = target
    return kind, facts


@contextmanager
def _settled_heads(settings: Settings) -> Iterator[None]:
    """While the heads' files and the note of them belong together."""
    lock = settings.data_dir / "heads" / "learning.lock"
    if not lock.parent.is_dir():
        yield
        return
    deadline = time.monotonic() + HEADS_SECONDS
    while True:
        with hold_lock(lock) as free:
            if free or time.monotonic() > deadline:
                # Late, the note may name a version that is not there: it is learnt again.
                yield
                return
        time.sleep(HEADS_LOOK)


def _written(path: Path, content: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


async def _note(settings: Settings, by: str, target: str, details: dict[str, object]) -> None:
    database = Database(settings.resolved_database_url)
    try:
        await AuditLog(database).note(by, "db.backup", target, details)
    except ApplianceError as error:
        # The backup is there all the same, and a full disk is when it is needed most.
        log.warning("backup_not_noted", detail=error.detail)
    finally:
        await database.aclose()

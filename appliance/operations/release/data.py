"""The database in an upgrade: kept as it is, migrated as a copy, and the copy put in its place.

Of the two that there are afterwards the original is the backup, untouched. What a method needs to
know is in the journal, so that whoever finds an upgrade unfinished can undo it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any, Final, Protocol

from appliance.errors import ApplianceError, Conflict, StorageUnavailable
from appliance.operations.release.layout import sync_folder
from appliance.storage import migrate, whole
from appliance.storage.engines import parse_url, sqlite_file

ROOM: Final = 3
"""Free space needed, in sizes of the database: its backup, the copy that is migrated, and what a
migration that rebuilds tables takes in between."""
CHUNK: Final = 2**20
BESIDE: Final = ("-wal", "-shm", "-journal")
NAME_MAX: Final = 63
"""Longest name of a database in PostgreSQL, in bytes."""

Facts = dict[str, Any]


class MigrationRefused(ApplianceError):
    """The migrated copy is not what the original was."""

    code = "migration_refused"
    title = "The migrated copy of the database is not in order"
    default_hint = "The database is as it was. Keep the log and report this."


class Data(Protocol):
    """One database, whatever its kind."""

    def preflight(self, notes: Path) -> None:
        """:raises ApplianceError: an upgrade could not keep it, below ``notes``, or copy it."""

    def back_up(self, folder: Path) -> Facts:
        """Keep it as it is, while nobody uses it; the facts say what to restore from."""

    def stage(self, source: Facts | None) -> None:
        """Make the copy that is to take its place, from the present one or from a backup.

        :raises MigrationRefused: migrating it would lose something.
        """

    def take_over(self, backup: Facts) -> None:
        """Put the copy in its place."""

    def restore(self, backup: Facts) -> None:
        """Put back what was backed up, whatever happened since; does nothing where nothing did."""

    def discard(self, backup: Facts) -> None:
        """Forget a backup."""


def data_of(url: str) -> Data:
    """The one that the settings name."""
    file = sqlite_file(parse_url(url))
    return PostgreSQL(url) if file is None else SQLite(url, file)


class SQLite:
    """One file."""

    def __init__(self, url: str, file: Path) -> None:
        self._url = url
        self._file = file
        self._next = file.with_name(f"{file.name}.next")

    def preflight(self, notes: Path) -> None:
        """Room for what is about to be made."""
        if not self._file.exists():
            raise StorageUnavailable("There is no database.", hint="Run 'appliance db upgrade'.")
        if self._file.is_symlink():
            raise _is_link(self._file)
        # The backup may lie on another disk.
        for folder, times in ((self._file.parent, ROOM), (notes, 1)):
            needed = times * whole.size(self._url)
            free = shutil.disk_usage(folder).free
            if free < needed:
                raise Conflict(
                    f"{free / 2**20:.0f} MiB are free in {folder}; an upgrade needs "
                    f"{needed / 2**20:.0f}, {times} times the database.",
                    hint="Free some space, or move that folder to a larger disk.",
                )

    def back_up(self, folder: Path) -> Facts:
        """Byte for byte."""
        whole.settle(self._url)
        target = folder / self._file.name
        _copy(self._file, target)
        facts = {"file": target.name, "folder": str(folder), "sha256": hash_of(target)}
        if facts["sha256"] != hash_of(self._file):
            raise StorageUnavailable("The backup differs from the database: the disk failed.")
        return facts

    def stage(self, source: Facts | None) -> None:
        """Where the form stays as it is, the file stays, too."""
        self._next.unlink(missing_ok=True)
        if source is not None:
            _copy(Path(source["folder"]) / source["file"], self._next)
            return
        if migrate.current(self._url) == migrate.head():
            return
        _copy(self._file, self._next)
        url = f"sqlite:///{self._next}"
        migrate_and_compare(self._url, url)
        whole.settle(url)

    def take_over(self, backup: Facts) -> None:
        """One rename."""
        if self._next.exists():
            _drop_beside(self._file)
            self._next.rename(self._file)
            sync_folder(self._file.parent)

    def restore(self, backup: Facts) -> None:
        """The very bytes."""
        self._next.unlink(missing_ok=True)
        _drop_beside(self._next)
        same = self._file.exists() and hash_of(self._file) == backup["sha256"]
        log = Path(f"{self._file}-wal")
        if same and not (log.exists() and log.stat().st_size):
            return
        _copy(Path(backup["folder"]) / backup["file"], self._next)
        if hash_of(self._next) != backup["sha256"]:
            raise StorageUnavailable(
                f"The backup in {backup['folder']} is damaged.",
                hint="Restore another one with 'appliance db restore'.",
            )
        _drop_beside(self._file)
        self._next.rename(self._file)
        sync_folder(self._file.parent)

    def discard(self, backup: Facts) -> None:
        """It goes with its folder."""


class PostgreSQL:
    """One database of a server, with its backups beside it: there the original is kept by a new
    name, and its copy goes on by the old one."""

    def __init__(self, url: str) -> None:
        self._url = parse_url(url)
        self._server = whole.Databases(url)
        self._name = self._url.database or ""
        self._next = f"{self._name}_next"

    def preflight(self, notes: Path) -> None:
        """The server's disk is out of sight; what else it takes is looked at."""
        if not self._server.may_create():
            user = self._url.username
            raise Conflict(
                f"PostgreSQL's user {user} may not create databases, which an upgrade does.",
                hint=f'As its administrator: ALTER ROLE "{user}" CREATEDB;',
            )
        self._server.drop(self._next)

    def back_up(self, folder: Path) -> Facts:
        """Decides on the name; the original itself is what will be kept."""
        name = f"{self._name}_{folder.name}"
        if len(name.encode()) > NAME_MAX:
            raise Conflict(f"The name {name} is too long for a database.")
        return {"database": name}

    def stage(self, source: Facts | None) -> None:
        """Copied by the server itself, which refuses while anybody is connected."""
        self._server.drop(self._next)
        self._server.copy(source["database"] if source else self._name, self._next)
        if source is None:
            url = self._url.render_as_string(hide_password=False)
            after = self._url.set(database=self._next).render_as_string(hide_password=False)
            migrate_and_compare(url, after)

    def take_over(self, backup: Facts) -> None:
        """Both names change in one transaction."""
        if not self._server.exists(backup["database"]):
            self._server.rename((self._name, backup["database"]), (self._next, self._name))

    def restore(self, backup: Facts) -> None:
        """The original gets its name back. Until it has, nothing tells it from a backup."""
        if self._server.exists(backup["database"]):
            self._server.drop(self._name)
            self._server.rename((backup["database"], self._name))
        self._server.drop(self._next)

    def discard(self, backup: Facts) -> None:
        """Drop it."""
        self._server.drop(backup["database"])


def migrate_and_compare(before: str, after: str) -> None:
    """Migrate the copy and hold it against its original.

    This runs as code of the release that brings the migrations: one of a later release that is
    meant to move rows says so here.

    :raises MigrationRefused: a migration failed, rows are gone, or it is damaged.
    """
    try:
        migrate.upgrade(after)
    except StorageUnavailable as error:
        # The driver's own first line: what a running desk is told of such an error would mislead
        # here, and later lines may quote rows.
        said = str(getattr(error.__cause__, "orig", error.detail)).partition("\n")[0]
        raise MigrationRefused(f"Migrating the copy failed: {said}") from error
    try:
        whole.require_sound(after)
    except StorageUnavailable as error:
        raise MigrationRefused(error.detail) from error
    had, has = whole.counts(before), whole.counts(after)
    for table, rows in had.items():
        if has.get(table, 0) != rows:
            raise MigrationRefused(
                f"The table {table} had {rows} rows and has {has.get(table, 0)} after migrating."
            )


def hash_of(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _copy(source: Path, target: Path) -> None:
    """Contents, permissions and owner, on the disk when this returns. No link is followed: one of
    the two lies in a folder of the services' user, and root may be at work.

    :raises StorageUnavailable: the source is a link.
    """
    try:
        reading = os.fdopen(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _is_link(source) from error
    target.unlink(missing_ok=True)
    fresh = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with reading, os.fdopen(os.open(target, fresh, 0o600), "wb") as writing:
        found = os.fstat(reading.fileno())
        os.fchmod(writing.fileno(), found.st_mode & 0o777)
        if os.geteuid() == 0:
            os.fchown(writing.fileno(), found.st_uid, found.st_gid)
        shutil.copyfileobj(reading, writing, CHUNK)
        writing.flush()
        os.fsync(writing.fileno())
    sync_folder(target.parent)


def _is_link(file: Path) -> StorageUnavailable:
    hint = "Move the file there, or name its place by the setting database_url."
    return StorageUnavailable(f"{file} is a link.", hint=hint)


def _drop_beside(file: Path) -> None:
    for suffix in BESIDE:
        Path(f"{file}{suffix}").unlink(missing_ok=True)

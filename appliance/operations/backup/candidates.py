"""A database that was restored and is not in charge yet: beside the present one, where it can be
looked at, migrated, taken over or thrown away."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import URL

from appliance.errors import BackupUnsuited
from appliance.operations.backup.manifest import Manifest
from appliance.settings import Settings
from appliance.storage import dumps, migrate, snapshots
from appliance.storage.engines import parse_url, sqlite_file

STAGED: Final = "staged"
TRIAL: Final = "trial"
"""What the names of databases end in that are restored to be in charge, and for a rehearsal."""
_NAME_KEPT: Final = 39
"""Characters of a PostgreSQL database's name that names derived from it keep; 63 is the most."""


class Candidate(Protocol):
    """A restored database. ``url`` opens it."""

    url: str

    def differences(self, manifest: Manifest) -> list[str]:
        """What is not as the manifest says, or not as a sound database; asked before ``url`` was
        ever opened."""


class SqliteCandidate:
    """A file in a folder of its own."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.url = f"sqlite:///{file}"

    def differences(self, manifest: Manifest) -> list[str]:
        with snapshots.reading_copy(self.file) as copy:
            found = snapshots.check_sqlite(copy)
            if found:
                return found
            with tempfile.TemporaryDirectory(dir=self.file.parent) as folder:
                clean = Path(folder) / "clean.sqlite"
                migrate.upgrade(f"sqlite:///{clean}", manifest.revision)
                with snapshots.reading_copy(clean) as other:
                    found = snapshots.foreign_parts(copy, other)
            return found or _compared(snapshots.facts(copy), manifest)


class PostgresCandidate:
    """A database of its own on the settings' server."""

    def __init__(self, url: URL) -> None:
        self.parsed = url
        self.url = url.render_as_string(hide_password=False)

    def differences(self, manifest: Manifest) -> list[str]:
        return _compared(dumps.read_facts(self.parsed), manifest)


def require_known(manifest: Manifest) -> None:
    """:raises BackupUnsuited: a newer release made the backup."""
    if not snapshots.is_known(manifest.revision):
        raise BackupUnsuited(
            f"The backup's database has a form ({manifest.revision}) that this release, which is "
            f"at {migrate.head()}, does not know.",
            hint=f"Install the release that made it ({manifest.version}), or a newer one.",
        )


@contextmanager
def sqlite(source: Path) -> Iterator[SqliteCandidate]:
    """``source`` becomes the candidate and is not there afterwards, unless somebody took it."""
    candidate = SqliteCandidate(source)
    try:
        yield candidate
    finally:
        for path in source.parent.glob(f"{source.name}*"):
            path.unlink(missing_ok=True)


@contextmanager
def postgresql(settings: Settings, source: Path, staged: str) -> Iterator[PostgresCandidate]:
    """The dump in a new database called ``staged``, which is dropped afterwards unless it has got
    another name by then.

    :raises BackupUnsuited: the settings name no PostgreSQL server.
    :raises StorageUnavailable: it cannot be reached, or the user may not make databases there.
    """
    present = parse_url(settings.resolved_database_url)
    if sqlite_file(present) is not None:
        raise BackupUnsuited(
            "This is the backup of a PostgreSQL database, and database_url names none.",
            hint="Set database_url to a PostgreSQL server.",
        )
    url = present.set(database=staged)
    dumps.drop(url)
    dumps.create(url)
    try:
        dumps.restore(url, source)
        yield PostgresCandidate(url)
    finally:
        dumps.drop(url)


def beside(url: URL, what: str) -> str:
    """The name of a database that belongs to the one of the URL."""
    return f"{(url.database or '')[:_NAME_KEPT]}_{what}"


def _compared(facts: snapshots.Facts, manifest: Manifest) -> list[str]:
    found = []
    if facts.revision != manifest.revision:
        found.append(f"The database is at {facts.revision}, not at {manifest.revision}.")
    if facts.answers != manifest.answers:
        found.append("The answer records do not end where they did.")
    for name in sorted(facts.tables.keys() | manifest.tables.keys()):
        here, then = facts.tables.get(name), manifest.tables.get(name)
        if here is None or then is None:
            found.append(f"Table {name} is {'missing' if here is None else 'new'}.")
        elif here.rows != then.rows:
            found.append(f"Table {name} has {here.rows} rows, not {then.rows}.")
        elif here.sha256 != then.sha256:
            found.append(f"Rows of table {name} are not what they were.")
    return found

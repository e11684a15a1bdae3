"""How connections are opened: one place that knows what SQLite and PostgreSQL need to keep their
promises."""

from __future__ import annotations

import sqlite3
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from appliance.errors import SettingsError
from appliance.storage.types import to_json

PATIENCE = 10.0
"""How long a statement waits for another process's lock, in seconds."""

MIGRATION_PATIENCE = 120.0
"""How long a second migration waits for the first, in seconds."""


class Access(Enum):
    """What connections are for; the value is how SQLite begins the transaction.

    A write takes its lock at once: one that began as a reader and then writes fails with "locked"
    whenever somebody else wrote in between, and no waiting helps.
    """

    READ = "BEGIN"
    WRITE = "BEGIN IMMEDIATE"
    MIGRATE = "BEGIN EXCLUSIVE"


def parse_url(url: str) -> URL:
    """The URL with its driver filled in.

    :raises SettingsError: it names no database we support, or an SQLite database in memory, which
        no second connection could see.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingsError("database_url is not a URL.") from error
    backend = parsed.get_backend_name()
    if parsed.drivername not in (backend, "postgresql+psycopg", "sqlite+pysqlite"):
        raise SettingsError("database_url: use sqlite:///FILE or postgresql+psycopg://...")
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise SettingsError(
            f"database_url: {backend} is not supported; use sqlite or postgresql+psycopg."
        )
    if not parsed.database or parsed.database.startswith((":memory:", "file:")):
        raise SettingsError("database_url: SQLite needs the path of a file: sqlite:///FILE.")
    return parsed


def sqlite_file(url: URL) -> Path | None:
    """Where an SQLite database lies; None for PostgreSQL."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def open_engine(url: URL, access: Access, connections: int = 1) -> Engine:
    """An engine that connects on first use and holds up to that many connections.

    :raises SettingsError: PostgreSQL's driver, an optional dependency, is not installed.
    """
    file = sqlite_file(url)
    # Parameters stay out of error texts: they are customers' words, and errors are logged.
    pool: dict[str, Any] = {"pool_size": connections, "max_overflow": 0, "hide_parameters": True}
    if file is not None:
        return _sqlite(url, file, access, pool)
    try:
        return _postgresql(url, access, pool)
    except ModuleNotFoundError as error:
        raise SettingsError(
            "database_url names PostgreSQL, whose driver is not installed.",
            hint="Install smartsupport-appliance[postgresql].",
        ) from error


def _sqlite(url: URL, file: Path, access: Access, pool: dict[str, Any]) -> Engine:
    timeout = MIGRATION_PATIENCE if access is Access.MIGRATE else PATIENCE

    def connect() -> sqlite3.Connection:
        # mode=rw: a missing database must be reported, not replaced by an empty file readable to
        # everyone. No isolation level: the driver would begin and commit by itself around some
        # statements only.
        return sqlite3.connect(
            f"file:{quote(str(file.absolute()))}?mode=rw",
            uri=True,
            isolation_level=None,
            timeout=timeout,
            check_same_thread=False,
        )

    engine = create_engine(url, creator=connect, poolclass=QueuePool, **pool)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        if access is Access.MIGRATE:
            # Rebuilding a table with foreign keys on deletes its children by cascade. The switch
            # does nothing inside a transaction, so it is thrown here.
            connection.execute("PRAGMA foreign_keys=OFF")
            return
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        if access is Access.READ:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(access.value)

    return engine


def _postgresql(url: URL, access: Access, pool: dict[str, Any]) -> Engine:
    timeout = MIGRATION_PATIENCE if access is Access.MIGRATE else PATIENCE
    given = url.query.get("options", "")
    ours = f"-c lock_timeout={timeout:.0f}s -c timezone=UTC"
    options = " ".join((ours, given) if isinstance(given, str) else (ours, *given))
    reads = access is Access.READ
    return create_engine(
        url,
        # Writers rely on row locks followed by a fresh look, which stricter levels would turn into
        # failures. Readers get one snapshot for the whole transaction, as in SQLite.
        isolation_level="REPEATABLE READ" if reads else "READ COMMITTED",
        execution_options={"postgresql_readonly": reads},
        pool_pre_ping=True,
        json_serializer=to_json,
        connect_args={"connect_timeout": int(PATIENCE), "options": options},
        **pool,
    )

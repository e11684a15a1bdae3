"""The whole database as backups see it: copied while it is used, summed up, checked.

A copy is one moment of the database, and so is what is said of it: both are read in the same
transaction, whatever is written meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, Inspector, create_engine, event, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from appliance.storage import migrate
from appliance.storage.engines import PATIENCE
from appliance.storage.failures import raise_translated
from appliance.storage.tables import answer_chain

BATCH = 500
"""Rows summed up at a time."""
FINDINGS_MAX = 20
"""SQLite's own checks are asked for no more than this many findings."""


@dataclass(frozen=True, slots=True)
class TableSum:
    """A table's rows, and SHA-256 over all of them in the order of their keys."""

    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What a database holds. ``answers`` is the head of the answer records as SEQ:DIGEST, None in a
    form that has none."""

    revision: str | None
    tables: dict[str, TableSum]
    answers: str | None


def copy_sqlite(source: Path, target: Path) -> None:
    """Write a consistent copy of a database that is in use; readers and writers go on.

    :param target: a file that does not exist; made readable for this user only.
    :raises StorageUnavailable: the source cannot be read. StorageFull: there is no room.
    """
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    with _translated(), _opened(source, "rw") as connection:
        connection.exec_driver_sql("VACUUM INTO ?", (str(target),))


@contextmanager
def reading_copy(file: Path) -> Iterator[Connection]:
    """A copy that nobody writes, opened without leaving a trace on it.

    It may come from anybody: what its schema says is not trusted to be harmless.

    :raises StorageUnavailable: it is damaged or no database.
    """
    with _translated(), _opened(file, "ro&immutable=1") as connection:
        for pragma in ("trusted_schema=OFF", "query_only=ON", "cell_size_check=ON"):
            connection.exec_driver_sql(f"PRAGMA {pragma}")
        yield connection


def facts(connection: Connection) -> Facts:
    """Sum up every table of a database, whatever its revision."""
    schema = inspect(connection)
    names = sorted(schema.get_table_names())
    sums = {name: _sum(connection, name, _columns(schema, name)) for name in names}
    head = None
    if answer_chain.name in sums:
        row = connection.execute(select(answer_chain.c.seq, answer_chain.c.digest)).first()
        head = None if row is None else f"{row.seq}:{row.digest}"
    return Facts(MigrationContext.configure(connection).get_current_revision(), sums, head)


def check_sqlite(connection: Connection) -> list[str]:
    """What SQLite itself finds wrong with a copy, and what its schema has that our migrations did
    not make: a trigger of somebody else would act on every later write."""
    found = [
        str(row[0])
        for row in connection.exec_driver_sql(f"PRAGMA integrity_check({FINDINGS_MAX})")
        if row[0] != "ok"
    ]
    orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(FINDINGS_MAX)
    found += [f"A row of {row[0]} belongs to nothing in {row[2]}." for row in orphans]
    return found


def foreign_parts(connection: Connection, clean: Connection) -> list[str]:
    """What one schema has and a freshly migrated one of the same revision has not, or differently.
    Of tables and indexes the names are compared, of triggers and views every word."""
    theirs, ours = _parts(connection), _parts(clean)
    unlike = {(kind, name) for kind, name, *_ in theirs ^ ours}
    return [f"{kind} {name} is not as migrations make it." for kind, name in sorted(unlike)]


def is_known(revision: str | None) -> bool:
    """Whether this release can bring a database of that revision to its own form."""
    return revision is not None and migrate.knows(revision)


def _parts(connection: Connection) -> set[tuple[str, str, str, str]]:
    rows = connection.exec_driver_sql(
        "SELECT type, name, tbl_name, CASE WHEN type IN ('trigger', 'view') THEN sql ELSE '' END"
        " FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
    )
    return {(row[0], row[1], row[2], row[3]) for row in rows}


def _columns(schema: Inspector, table: str) -> tuple[list[str], list[str]]:
    """A table's columns, and those that its rows are ordered by."""
    columns = [column["name"] for column in schema.get_columns(table)]
    key = schema.get_pk_constraint(table)["constrained_columns"]
    return columns, key or columns


def _sum(connection: Connection, table: str, columns: tuple[list[str], list[str]]) -> TableSum:
    quoted = connection.dialect.identifier_preparer.quote
    chosen, key = ([quoted(name) for name in names] for names in columns)
    if connection.dialect.name == "postgresql":
        # As text, in an order that no locale decides.
        chosen = [f"{name}::text" for name in chosen]
        key = [f'{name}::text COLLATE "C"' for name in key]
    rows = connection.exec_driver_sql(
        f"SELECT {', '.join(chosen)} FROM {quoted(table)} ORDER BY {', '.join(key)}",  # noqa: S608 - names of the schema, quoted
        execution_options={"yield_per": BATCH},
    )
    count, hashed = 0, hashlib.sha256()
    for row in rows:
        line = json.dumps(list(row), ensure_ascii=False, default=_hexadecimal)
        hashed.update(line.encode() + b"\n")
        count += 1
    return TableSum(count, hashed.hexdigest())


def _hexadecimal(value: bytes) -> str:
    return bytes(value).hex()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise_translated(error)


@contextmanager
def _opened(file: Path, mode: str) -> Iterator[Connection]:
    """A connection outside of any transaction of ours: ``VACUUM`` refuses to run in one."""

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{quote(str(file.absolute()))}?mode={mode}",
            uri=True,
            isolation_level=None,
            timeout=PATIENCE,
        )

    engine: Engine = create_engine(
        "sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # One snapshot for all that is read of a copy; VACUUM's connection is in autocommit.
        if mode != "rw":
            connection.exec_driver_sql("BEGIN")

    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()

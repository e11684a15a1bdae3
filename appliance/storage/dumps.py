"""PostgreSQL's own tools, and databases made and exchanged beside the one in use.

A database is restored beside the present one on the same server and takes its name in one
transaction; so the user has to be allowed to create databases.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, func, inspect, select, text
from sqlalchemy.exc import DBAPIError

from appliance.errors import Conflict, StorageUnavailable
from appliance.storage.engines import Access, open_engine
from appliance.storage.failures import raise_translated
from appliance.storage.snapshots import Facts, facts

MAINTENANCE = ("postgres", "template1")
"""Databases that are on every server, from which others can be renamed."""

_TOOLS_HINT = "Install PostgreSQL's client programs of the server's version or newer."
_CREATE_HINT = "Let it: ALTER ROLE ... CREATEDB; it can be taken back afterwards."


def dump(url: URL, target: Path) -> Facts:
    """Write one moment of the database in ``pg_dump``'s custom format, and tell of that moment.

    :raises StorageUnavailable: the server cannot be reached, or ``pg_dump`` is missing or fails.
    """
    with _read(url) as connection:
        moment = connection.scalar(select(func.pg_export_snapshot()))
        _tool(
            url,
            "pg_dump",
            *("--format=custom", "--no-owner", "--no-privileges", "--no-password"),
            *(f"--snapshot={moment}", f"--file={target}"),
        )
        return facts(connection)


def restore(url: URL, source: Path) -> None:
    """Fill an empty database from a dump, wholly or not at all.

    :raises StorageUnavailable: it cannot be reached, or ``pg_restore`` is missing or fails.
    """
    _tool(
        url,
        "pg_restore",
        *("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"),
        *("--no-password", f"--dbname={url.database}", str(source)),
    )


def read_facts(url: URL) -> Facts:
    """What the database holds now.

    :raises StorageUnavailable: it cannot be reached.
    """
    with _read(url) as connection:
        return facts(connection)


def has_tables(url: URL) -> bool:
    """Whether the database holds anything; False where there is no such database.

    :raises StorageUnavailable: the server cannot be reached.
    """
    if not exists(url):
        return False
    with _read(url) as connection:
        return bool(inspect(connection).get_table_names())


def create(url: URL) -> None:
    """Make an empty database of the URL's name.

    :raises StorageUnavailable: the user may not.
    """
    _administer(url, [f"CREATE DATABASE {_quoted(url)} TEMPLATE template0 ENCODING 'UTF8'"])


def drop(url: URL) -> None:
    """Remove the database of the URL's name, if there is one."""
    _administer(url, [f"DROP DATABASE IF EXISTS {_quoted(url)}"])


def exchange(present: URL, fresh: URL, aside: URL) -> None:
    """Give ``fresh`` the name of ``present``, and that one, if it is there, the name of ``aside``;
    in one transaction.

    :raises Conflict: somebody is connected to one of them.
    :raises StorageUnavailable: the user may not.
    """
    renames = [(fresh, present)]
    if exists(present):
        renames.insert(0, (present, aside))
    statements = [f"ALTER DATABASE {_quoted(a)} RENAME TO {_quoted(b)}" for a, b in renames]
    _administer(present, statements, whole=True)


def exists(url: URL) -> bool:
    """Whether the server has a database of the URL's name.

    :raises StorageUnavailable: it cannot be reached.
    """
    with _maintaining(url, whole=True) as connection:
        known = text("SELECT 1 FROM pg_database WHERE datname = :name")
        return connection.execute(known, {"name": url.database}).first() is not None


@contextmanager
def _read(url: URL) -> Iterator[Connection]:
    engine = open_engine(url, Access.READ)
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        raise_translated(error)
    finally:
        engine.dispose()


def _administer(url: URL, statements: Sequence[str], *, whole: bool = False) -> None:
    with _maintaining(url, whole=whole) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@contextmanager
def _maintaining(url: URL, *, whole: bool) -> Iterator[Connection]:
    """A connection beside the database; ``whole`` makes what is done there one transaction, which
    creating and dropping databases refuse."""
    name = next(n for n in MAINTENANCE if n != url.database)
    engine = open_engine(url.set(database=name), Access.WRITE)
    if not whole:
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        if state == "55006":
            raise Conflict(
                "Somebody is connected to the database.",
                hint="Stop the appliance and whoever else uses it; see pg_stat_activity.",
            ) from error
        if state == "42501":
            raise StorageUnavailable(
                "The database's user may not create and rename databases, which restoring needs.",
                hint=_CREATE_HINT,
            ) from error
        raise_translated(error)
    finally:
        engine.dispose()


def _quoted(url: URL) -> str:
    name = url.database or ""
    return '"' + name.replace('"', '""') + '"'


def _tool(url: URL, program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs. Where to connect to, password included, goes into a file
    that only this user can read: arguments can be read by everybody on the machine."""
    found = shutil.which(program)
    if found is None:
        raise StorageUnavailable(f"{program} is not on this machine.", hint=_TOOLS_HINT)
    with tempfile.TemporaryDirectory(prefix="appliance-pg-") as folder:
        service = Path(folder) / "service"
        service.touch(mode=0o600)
        service.write_text(_service(url), encoding="utf-8")
        done = subprocess.run(  # noqa: S603 - a fixed program and our own arguments
            [found, *arguments],
            env={
                **os.environ,
                "PGSERVICEFILE": str(service),
                "PGSERVICE": "desk",
                "LC_MESSAGES": "C",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    if done.returncode != 0:
        # The last lines quote rows and statements; the first one says what it is about.
        said = next((line for line in done.stderr.splitlines() if "error:" in line), "no reason")
        raise StorageUnavailable(f"{program} failed: {said}", hint=_TOOLS_HINT)


def _service(url: URL) -> str:
    from psycopg.conninfo import conninfo_to_dict

    given = url.set(drivername="postgresql").render_as_string(hide_password=False)
    known = {name: value for name, value in conninfo_to_dict(given).items() if value is not None}
    return "[desk]\n" + "".join(f"{name}={value}\n" for name, value in known.items())

"""What an upgrade asks of a database as a whole, of whatever form it is: nothing here knows the
tables by ``tables.py``, because the form may be an older one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, MetaData, Table, func, inspect, select, text
from sqlalchemy.exc import DBAPIError

from appliance.errors import StorageUnavailable
from appliance.storage.engines import Access, open_engine, parse_url, sqlite_file
from appliance.storage.failures import raise_translated

BOOKKEEPING: Final = frozenset(("alembic_version", "heartbeats", "workers", "served_model"))
"""Tables that processes fill by running; what they hold is nobody's content."""
START: Final = "appliance.start"
"""The audit's line of each start: the same."""


def counts(url: str) -> dict[str, int]:
    """Rows of each table but the migration's own.

    :raises StorageUnavailable: it cannot be read.
    """
    with _reading(url) as connection:
        return {
            table.name: connection.scalar(select(func.count()).select_from(table)) or 0
            for table in _tables(connection)
            if table.name != "alembic_version"
        }


def digest(url: str) -> str:
    """A hash of every row that is somebody's content, in hex: another one means that something was
    written.

    :raises StorageUnavailable: it cannot be read.
    """
    found = hashlib.sha256()
    with _reading(url) as connection:
        for table in _tables(connection):
            if table.name in BOOKKEEPING:
                continue
            found.update(f"\n{table.name}\n".encode())
            query = select(table).order_by(*table.primary_key.columns)
            if table.name == "audit_log":
                query = query.where(table.c.action != START)
            rows = connection.execution_options(yield_per=1_000).execute(query)
            for row in rows:
                found.update(repr(tuple(row)).encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def questions(url: str, limit: int) -> list[tuple[str, str]]:
    """The first articles: id and question. Empty where the form has none."""
    try:
        with _reading(url) as connection:
            rows = connection.execute(
                text("SELECT id, question FROM knowledge_entries ORDER BY position LIMIT :limit"),
                {"limit": limit},
            )
            return [(str(row[0]), str(row[1])) for row in rows]
    except StorageUnavailable:
        return []


def settle(url: str) -> None:
    """Bring what SQLite keeps beside its file into it, so that the file is the whole database.

    :raises StorageUnavailable: somebody else still uses it.
    """
    engine = open_engine(parse_url(url), Access.MIGRATE)
    try:
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            busy = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if busy:
                raise StorageUnavailable("The database is still in use.")
    except DBAPIError as error:
        raise_translated(error)
    finally:
        engine.dispose()


def require_sound(url: str) -> None:
    """:raises StorageUnavailable: SQLite finds the file damaged, or a row without its owner."""
    if sqlite_file(parse_url(url)) is None:
        return  # PostgreSQL checks constraints as they are made
    with _reading(url) as connection:
        said = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
        if said != "ok":
            raise StorageUnavailable(f"The database is damaged: {said}.")
        if connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise StorageUnavailable("The database has rows without their owner.")


def size(url: str) -> int:
    """Bytes that the database takes."""
    parsed = parse_url(url)
    file = sqlite_file(parsed)
    if file is not None:
        return file.stat().st_size if file.exists() else 0
    with _reading(url) as connection:
        return connection.scalar(select(func.pg_database_size(func.current_database()))) or 0


class Databases:
    """Databases of one PostgreSQL server as wholes: copied, renamed, dropped by name.

    Needs a user who may create databases and a database ``postgres`` to connect to meanwhile.

    :param url: of any of them.
    """

    def __init__(self, url: str) -> None:
        self._url = parse_url(url).set(database="postgres")

    def may_create(self) -> bool:
        """Whether this user may create databases."""
        with self._orders() as connection:
            query = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
            return bool(connection.scalar(text(query)))

    def exists(self, name: str) -> bool:
        """Whether there is one of that name."""
        with self._orders() as connection:
            found = text("SELECT 1 FROM pg_database WHERE datname = :name")
            return connection.scalar(found, {"name": name}) is not None

    def copy(self, source: str, target: str) -> None:
        """Make a copy; nobody may be connected to the source."""
        with self._orders() as connection:
            connection.execute(
                text(f"CREATE DATABASE {_quoted(target)} TEMPLATE {_quoted(source)}")
            )

    def drop(self, name: str) -> None:
        """Remove one, if it is there, whoever is connected to it."""
        with self._orders() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)"))

    def rename(self, *pairs: tuple[str, str]) -> None:
        """Give new names, all of them or none."""
        with self._orders() as connection:
            connection.execute(text("BEGIN"))
            for before, after in pairs:
                connection.execute(
                    text(f"ALTER DATABASE {_quoted(before)} RENAME TO {_quoted(after)}")
                )
            connection.execute(text("COMMIT"))

    @contextmanager
    def _orders(self) -> Iterator[Connection]:
        engine = open_engine(self._url, Access.MIGRATE)
        try:
            with engine.connect() as connection:
                # Databases are neither made nor dropped inside a transaction.
                yield connection.execution_options(isolation_level="AUTOCOMMIT")
        except DBAPIError as error:
            raise_translated(error)
        finally:
            engine.dispose()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""').replace(":", "\\:") + '"'


def _tables(connection: Connection) -> list[Table]:
    found = MetaData()
    names = inspect(connection).get_table_names()
    found.reflect(connection, only=names)
    return sorted(found.tables.values(), key=lambda table: table.name)


@contextmanager
def _reading(url: str) -> Iterator[Connection]:
    engine = open_engine(parse_url(url), Access.READ)
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        raise_translated(error)
    finally:
        engine.dispose()

"""Bringing a database to the form the code expects, with Alembic driven from here: there is no
alembic.ini.

A migration is one transaction, beside which nobody else can migrate; it happens as a whole or not
at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import URL, Connection, column, func, select, table
from sqlalchemy.exc import DBAPIError

from appliance.errors import NotMigrated, StorageUnavailable
from appliance.settings import HOME
from appliance.storage.engines import Access, open_engine, parse_url, sqlite_file
from appliance.storage.failures import NOT_MIGRATED, UPGRADE_HINT, raise_translated

FOLDER = HOME / "migrations"

_VERSIONS = table("alembic_version", column("version_num"))
_REVISION = select(_VERSIONS.c.version_num)

_ADVISORY_LOCK = 0x5355_5050_4F52_54
"""Our key among PostgreSQL's advisory locks: "SUPPORT" in ASCII."""


def upgrade(url: str, revision: str = "head") -> None:
    """Create the database's tables or bring them to ``revision``; two processes may do so at once.

    A new SQLite file is readable for this user only.

    :raises StorageUnavailable: it cannot be reached, was left by a newer release, or would break
        its own references; it is then as it was before.
    """
    with _transaction(parse_url(url)) as connection:
        command.upgrade(_configuration(connection), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the database back to an earlier revision, or to ``base``; what that form cannot hold is
    lost.

    :raises StorageUnavailable: as ``upgrade`` does.
    """
    with _transaction(parse_url(url)) as connection:
        command.downgrade(_configuration(connection), revision)


def draft(url: str, words: str) -> Path:
    """For developers: write the migration that leads from the others to ``tables.py``, and return
    its file.

    Compares with the database at ``url``, which is upgraded first. A draft: read it before it
    lands.
    """
    with _transaction(parse_url(url)) as connection:
        config = _configuration(connection)
        command.upgrade(config, "head")
        revision = datetime.now(UTC).strftime("%Y%m%d%H%M")
        script = command.revision(config, words, autogenerate=True, rev_id=revision)
    _scripts.cache_clear()
    assert isinstance(script, Script)
    return Path(script.path)


def current(url: str) -> str | None:
    """The database's revision; None when it does not exist or is empty.

    :raises StorageUnavailable: it cannot be reached.
    """
    parsed = parse_url(url)
    file = sqlite_file(parsed)
    if file is not None and not file.exists():
        return None
    engine = open_engine(parsed, Access.READ)
    try:
        with engine.begin() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as error:
        raise_translated(error)
    finally:
        engine.dispose()


def head() -> str:
    """The revision this code is written for."""
    found = _scripts(FOLDER).get_current_head()
    assert found is not None
    return found


def knows(revision: str) -> bool:
    """Whether a database of that revision can be brought to this code's form."""
    return any(script.revision == revision for script in _scripts(FOLDER).walk_revisions())


def require_head(connection: Connection) -> None:
    """Return when the database has the form this code is written for.

    :raises NotMigrated: it is not migrated, or its form is older or newer.
    """
    # Asked every second. Alembic makes its table anew each time, and with it a statement that the
    # engine compiles and remembers: the memory of hundreds of them.
    there = connection.dialect.has_table(connection, _VERSIONS.name)
    found = connection.execute(_REVISION).scalar_one_or_none() if there else None
    _refuse_newer(found)
    if found is None:
        raise NotMigrated(NOT_MIGRATED, hint=UPGRADE_HINT)
    if found != head():
        raise NotMigrated("The database is older than this release.", hint=UPGRADE_HINT)


@cache
def _scripts(folder: Path) -> ScriptDirectory:
    return ScriptDirectory(str(folder))


def _refuse_newer(found: str | None) -> None:
    if found is not None and not knows(found):
        raise NotMigrated(
            "The database was migrated by a newer release.",
            hint="Install that release again, or restore the backup made before its upgrade.",
        )


@contextmanager
def _transaction(url: URL) -> Iterator[Connection]:
    file = sqlite_file(url)
    if file is not None:
        _create(file)
    engine = open_engine(url, Access.MIGRATE)
    try:
        with engine.begin() as connection:
            if file is None:
                connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            _refuse_newer(MigrationContext.configure(connection).get_current_revision())
            yield connection
            if file is not None and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                raise StorageUnavailable(
                    "The migration would leave rows without their owner; nothing was changed.",
                    hint="Keep the database and report this.",
                )
    except DBAPIError as error:
        raise_translated(error)
    finally:
        engine.dispose()


def _create(file: Path) -> None:
    """An empty private file, before SQLite makes one that everybody may read.

    Only when there is none: closing any handle of a file drops the locks that other connections of
    this process hold on it.
    """
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise StorageUnavailable(
            f"The database file cannot be created: {error.strerror}.",
            hint="Check that the data folder exists and that this user may write there.",
        ) from error


def _configuration(connection: Connection) -> Config:
    """Alembic's configuration, with the connection for env.py."""
    config = Config(attributes={"connection": connection})
    # The parser behind this reads % as the start of a substitution.
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option(
        "file_template", "%%(year)d-%%(month).2d-%%(day).2d-%%(hour).2d%%(minute).2d_%%(slug)s"
    )
    config.set_main_option("timezone", "UTC")
    return config

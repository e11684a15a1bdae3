"""Fixtures: a fresh migrated database for each test, on SQLite and on a private PostgreSQL cluster.

The cluster is made for the test session, listens on a Unix socket only, and does not care for
durability. Tests get copies of a migrated template, which costs less than migrating each time.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from appliance.storage import Database, migrate

_SUPERUSER = "desk"
_FAST = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "60",
    "shared_buffers": "16MB",
}


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    """Where no database is yet."""
    return f"sqlite:///{tmp_path / 'appliance.db'}"


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "appliance.db"
    migrate.upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture
def sqlite_url(tmp_path: Path, _sqlite_template: Path) -> str:
    file = tmp_path / "appliance.db"
    shutil.copy(_sqlite_template, file)
    return f"sqlite:///{file}"


@pytest.fixture(scope="session")
def postgresql_cluster() -> Iterator[Path]:
    """The folder of a running cluster's socket."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not programs:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up("PostgreSQL's server programs are not installed")
    # PostgreSQL refuses to run as root, and its own user has to reach the folder, whatever TMPDIR
    # says. A socket's path is limited to 107 bytes, too.
    folder = Path(tempfile.mkdtemp(prefix="desk-pg-", dir=_parent_folder()))
    user: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        user |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    pg_ctl, data = programs[-1], folder / "data"

    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **user)

    options = " ".join(f"-c {name}='{value}'" for name, value in _FAST.items())
    try:
        run(
            *(
                pg_ctl.with_name("initdb"),
                "-D",
                data,
                "-U",
                _SUPERUSER,
                "--auth=trust",
                "--no-sync",
            ),
            *("--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"),
        )
        run(pg_ctl, "-D", data, "-l", folder / "log", "-w", "-o", f"{options} -k {folder}", "start")
        try:
            yield folder
        finally:
            run(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parent_folder() -> str:
    """Memory where there is plenty: making a database is mostly writing files."""
    memory = "/dev/shm"
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 512 * 2**20
    return memory if roomy else "/tmp"


def _url(cluster: Path, name: str) -> str:
    return f"postgresql+psycopg://{_SUPERUSER}@/{name}?host={cluster}"


@pytest.fixture(scope="session")
def _administration(postgresql_cluster: Path) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(
        host=str(postgresql_cluster), user=_SUPERUSER, dbname="postgres", autocommit=True
    ) as connection:
        yield connection


@pytest.fixture(scope="session")
def _postgresql_template(postgresql_cluster: Path, _administration: psycopg.Connection[Any]) -> str:
    _administration.execute("CREATE DATABASE migrated")
    migrate.upgrade(_url(postgresql_cluster, "migrated"))
    return "migrated"


@pytest.fixture
def empty_postgresql_url(
    postgresql_cluster: Path, _administration: psycopg.Connection[Any]
) -> Iterator[str]:
    yield from _new_database(postgresql_cluster, _administration, "template1")


@pytest.fixture
def postgresql_url(
    postgresql_cluster: Path, _administration: psycopg.Connection[Any], _postgresql_template: str
) -> Iterator[str]:
    yield from _new_database(postgresql_cluster, _administration, _postgresql_template)


def _new_database(
    cluster: Path, administration: psycopg.Connection[Any], template: str
) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    administration.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    yield _url(cluster, name)
    administration.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database without records; the test runs once on each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """A database without tables."""
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url


@pytest.fixture
async def database(database_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    """An open ``Database`` on each kind."""
    database = Database(database_url)
    yield database
    await database.aclose()


@pytest.fixture
async def sqlite_database(sqlite_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    """An open ``Database`` on SQLite only, for tests that are about something else than storage."""
    database = Database(sqlite_url)
    yield database
    await database.aclose()

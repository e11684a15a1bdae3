"""The unit of work: all or nothing, reads that only read, and errors in the appliance's own
words."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from appliance.domain.passage import Article
from appliance.errors import Conflict, InvalidInput, SettingsError, StorageUnavailable
from appliance.storage import Database, Records, migrate
from appliance.storage.engines import Access, open_engine, parse_url
from appliance.storage.failures import passing, raise_translated

pytestmark = pytest.mark.anyio


def user_ids(records: Records) -> list[str]:
    return [user.id for user in records.users.list(100)]


async def test_what_work_returns_is_committed(database: Database) -> None:
    user = await database.write(lambda records: records.users.ensure("ada"))
    assert user.id == "ada"
    assert await database.read(user_ids) == ["ada"]


async def test_an_exception_leaves_nothing_behind(database: Database) -> None:
    class RefusedError(Exception):
        pass

    def work(records: Records) -> None:
        records.users.ensure("ada")
        records.knowledge.save([Article("1", "q", "a", "General")], replace=False)
        raise RefusedError

    with pytest.raises(RefusedError):
        await database.write(work)
    assert await database.read(user_ids) == []
    assert await database.read(lambda records: records.knowledge.version()) == 0


async def test_a_broken_rule_undoes_the_whole_transaction(database: Database) -> None:
    def work(records: Records) -> None:
        records.keys.add("one", "agent", None, "the same hash")
        records.keys.add("two", "agent", None, "the same hash")

    with pytest.raises(Conflict) as failure:
        await database.write(work)
    assert "key_hash" in failure.value.detail
    assert "the same hash" not in failure.value.detail
    assert await database.read(lambda records: records.keys.list()) == []


async def test_an_error_shows_nothing_of_what_was_to_be_stored(database: Database) -> None:
    with pytest.raises(Conflict) as failure:
        await database.write(
            lambda records: records.feedback.put("SECRET", "SECRET", "up", "SECRET")
        )
    assert "SECRET" not in str(failure.value)
    assert failure.value.__cause__ is None


async def test_reading_refuses_changes(database: Database) -> None:
    with pytest.raises(StorageUnavailable, match="cannot be written"):
        await database.read(lambda records: records.users.ensure("ada"))
    assert await database.read(user_ids) == []


async def test_reading_sees_one_moment(database: Database) -> None:
    """A reader that is half way through does not see what is committed meanwhile, and is not waited
    for."""
    looked, go_on = threading.Event(), threading.Event()

    def reader(records: Records) -> tuple[list[str], list[str]]:
        first = user_ids(records)
        looked.set()
        assert go_on.wait(10)
        return first, user_ids(records)

    reading = asyncio.create_task(database.read(reader))
    assert await asyncio.to_thread(looked.wait, 10)
    await database.write(lambda records: records.users.ensure("ada"))
    go_on.set()
    assert await reading == ([], [])
    assert await database.read(user_ids) == ["ada"]


async def test_the_event_loop_goes_on_meanwhile(database: Database) -> None:
    release = threading.Event()
    writing = asyncio.create_task(database.write(lambda records: release.wait(10)))
    await asyncio.sleep(0.01)
    assert not writing.done()
    release.set()
    assert await writing is True


async def test_work_that_has_begun_ends_although_its_caller_left(database: Database) -> None:
    begun, release = threading.Event(), threading.Event()

    def work(records: Records) -> None:
        records.users.ensure("ada")
        begun.set()
        assert release.wait(10)

    writing = asyncio.create_task(database.write(work))
    assert await asyncio.to_thread(begun.wait, 10)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    release.set()
    await database.write(lambda records: records.users.ensure("bob"))
    while await database.read(user_ids) != ["ada", "bob"]:
        await asyncio.sleep(0.01)


async def test_work_runs_in_its_callers_context(database: Database) -> None:
    query: contextvars.ContextVar[str] = contextvars.ContextVar("query")
    query.set("q-1")
    assert await database.read(lambda records: query.get()) == "q-1"


async def test_a_closed_database_says_so(database: Database) -> None:
    await database.check()
    await database.aclose()
    with pytest.raises(StorageUnavailable, match="closed"):
        await database.read(user_ids)


async def test_a_deadlock_is_run_again(postgresql_url: str) -> None:
    """Two transactions take the same two rows in opposite order: PostgreSQL ends one, which then
    succeeds."""
    database = Database(postgresql_url)
    both_hold_one = threading.Barrier(2)
    runs: list[str] = []

    def work(first: str, second: str) -> Callable[[Records], None]:
        def swap(records: Records) -> None:
            runs.append(first)
            records.users.update(first, name=f"{first} before {second}")
            if runs.count(first) == 1:
                both_hold_one.wait(10)
            records.users.update(second, name=f"{first} before {second}")

        return swap

    await database.write(lambda records: [records.users.ensure(name) for name in ("ada", "bob")])
    await asyncio.gather(database.write(work("ada", "bob")), database.write(work("bob", "ada")))
    assert len(runs) == 3
    assert (
        len({user.name for user in await database.read(lambda records: records.users.list(2))}) == 1
    )
    await database.aclose()


@contextmanager
def held(url: str) -> Iterator[None]:
    """Somebody else is writing."""
    engine = open_engine(parse_url(url), Access.WRITE)
    with engine.begin() as connection:
        connection.execute(text("UPDATE users SET name = 'held'"))
        yield
    engine.dispose()


async def test_a_lock_that_goes_away_is_waited_for(database: Database, database_url: str) -> None:
    await database.write(lambda records: records.users.ensure("ada"))
    with held(database_url):
        writing = asyncio.create_task(
            database.write(lambda records: records.users.update("ada", vip=True))
        )
        await asyncio.sleep(0.2)
        assert not writing.done()
    assert (await writing).vip


async def test_a_lock_that_stays_is_reported(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.storage.engines.PATIENCE", 1.0)
    monkeypatch.setattr("appliance.storage.database.PATIENCE", 1.0)
    database = Database(database_url)
    await database.write(lambda records: records.users.ensure("ada"))
    with held(database_url), pytest.raises(StorageUnavailable, match="locked"):
        await database.write(lambda records: records.users.update("ada", vip=True))
    assert (await database.write(lambda records: records.users.update("ada", vip=True))).vip
    await database.aclose()


async def test_a_missing_file_is_reported_and_not_made(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'appliance.db'}")
    for _ in range(2):
        with pytest.raises(StorageUnavailable, match="cannot be opened") as failure:
            await database.check()
    assert "appliance db upgrade" in failure.value.hint
    assert list(tmp_path.iterdir()) == []
    await database.aclose()


async def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="cannot be created: No such file or directory"):
        migrate.upgrade(f"sqlite:///{tmp_path / 'nowhere' / 'appliance.db'}")


async def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'appliance.db'}"
    (tmp_path / "appliance.db").write_bytes(os.urandom(8_192))
    database = Database(url)
    with pytest.raises(StorageUnavailable, match="not an SQLite database"):
        await database.check()
    await database.aclose()
    with pytest.raises(StorageUnavailable, match="not an SQLite database"):
        migrate.upgrade(url)
    with pytest.raises(StorageUnavailable, match="not an SQLite database"):
        migrate.current(url)


async def test_a_missing_server_is_reported(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://desk@/appliance?host={tmp_path}"
    database = Database(url)
    with pytest.raises(StorageUnavailable, match="does not answer") as failure:
        await database.check()
    assert "database_url" in failure.value.hint
    assert "No such file" in str(failure.value.__cause__)
    await database.aclose()
    with pytest.raises(StorageUnavailable):
        migrate.current(url)


async def test_a_server_that_restarted_costs_nothing(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    await database.check()
    engine = open_engine(parse_url(postgresql_url), Access.WRITE)
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid != pg_backend_pid()"
            )
        )
    engine.dispose()
    await database.check()
    await database.aclose()


def failure_of(url: str, *statements: str) -> DBAPIError:
    engine = open_engine(parse_url(url), Access.WRITE)

    def execute() -> None:
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    with pytest.raises(DBAPIError) as failure:
        execute()
    engine.dispose()
    return failure.value


async def test_a_full_disk_is_reported(sqlite_url: str) -> None:
    error = failure_of(
        sqlite_url,
        "PRAGMA max_page_count = 1",
        "INSERT INTO knowledge_entries VALUES "
        f"('1', 1, '{'x' * 60_000}', 'a', 'General', 'now', 'now')",
    )
    assert not passing(error)
    with pytest.raises(StorageUnavailable, match="disk is full"):
        raise_translated(error)


async def test_text_that_cannot_be_stored_is_bad_input(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    with pytest.raises(InvalidInput):
        await database.write(lambda records: records.users.ensure("zero\x00byte"))
    await database.aclose()


async def test_a_defect_in_a_query_is_not_called_an_outage(database_url: str) -> None:
    error = failure_of(database_url, "SELEC 1")
    with pytest.raises(DBAPIError) as failure:
        raise_translated(error)
    assert failure.value is error


async def test_an_error_hides_the_parameters_of_its_query(database_url: str) -> None:
    engine = open_engine(parse_url(database_url), Access.READ)
    with pytest.raises(DBAPIError, match="SELEC") as failure, engine.begin() as connection:
        connection.execute(text("SELEC :words"), {"words": "SECRET"})
    assert "SECRET" not in str(failure.value)
    engine.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "not a url",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite+aiosqlite:///appliance.db",
        "mysql://desk@host/appliance",
        "postgresql+asyncpg://desk@host/appliance",
    ],
)
async def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(SettingsError):
        Database(url)


async def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SettingsError, match="driver is not installed"):
        Database("postgresql://desk@host/appliance")


async def test_postgresql_has_one_driver() -> None:
    assert parse_url("postgresql://desk@host/appliance").drivername == "postgresql+psycopg"

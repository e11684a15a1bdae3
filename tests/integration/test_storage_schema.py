"""What the databases themselves enforce: settings, strict types, rules, cascades."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
from sqlalchemy import Connection, Engine, delete, func, insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from appliance.domain.answer import Mode, Outcome
from appliance.errors import Conflict
from appliance.storage import Database, Records, migrate, tables
from appliance.storage.engines import Access, open_engine, parse_url, sqlite_file

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(parse_url(database_url), Access.WRITE)
    yield engine
    engine.dispose()


def rows(connection: Connection, table: Any) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


@pytest.mark.parametrize(
    ("access", "query_only"), [(Access.READ, 1), (Access.WRITE, 0)], ids=["read", "write"]
)
def test_sqlite_is_set_up_for_safety(sqlite_url: str, access: Access, query_only: int) -> None:
    engine = open_engine(parse_url(sqlite_url), access)
    with engine.begin() as connection:

        def pragma(name: str) -> Any:
            return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()

        assert pragma("journal_mode") == "wal"
        assert pragma("busy_timeout") == 10_000
        assert pragma("foreign_keys") == 1
        assert pragma("synchronous") == 2
        assert pragma("query_only") == query_only
    engine.dispose()


def test_postgresql_is_set_up_for_safety(postgresql_url: str) -> None:
    settings = {}
    for access in (Access.READ, Access.WRITE):
        engine = open_engine(parse_url(postgresql_url + "&options=-c%20work_mem%3D8MB"), access)
        with engine.begin() as connection:
            settings[access] = {
                name: connection.exec_driver_sql(f"SHOW {name}").scalar_one()
                for name in (
                    "lock_timeout",
                    "transaction_isolation",
                    "transaction_read_only",
                    "work_mem",
                )
            }
        engine.dispose()
    common = {"lock_timeout": "10s", "work_mem": "8MB"}
    assert settings == {
        Access.READ: {
            **common,
            "transaction_isolation": "repeatable read",
            "transaction_read_only": "on",
        },
        Access.WRITE: {
            **common,
            "transaction_isolation": "read committed",
            "transaction_read_only": "off",
        },
    }


def test_a_new_sqlite_file_is_private(empty_sqlite_url: str) -> None:
    migrate.upgrade(empty_sqlite_url)
    engine = open_engine(parse_url(empty_sqlite_url), Access.WRITE)
    with engine.begin() as connection:
        connection.execute(
            insert(tables.users).values(id="ada", vip=False, created_at=NOW, updated_at=NOW)
        )
        file = sqlite_file(parse_url(empty_sqlite_url))
        assert file is not None
        files = sorted(file.parent.glob(f"{file.name}*"))
        assert [found.name for found in files] == [
            "appliance.db",
            "appliance.db-shm",
            "appliance.db-wal",
        ]
        assert {stat.S_IMODE(found.stat().st_mode) for found in files} == {0o600}
    engine.dispose()


def test_every_sqlite_table_is_strict(sqlite_url: str) -> None:
    engine = open_engine(parse_url(sqlite_url), Access.READ)
    with engine.begin() as connection:
        found = connection.exec_driver_sql(
            "SELECT name, strict FROM pragma_table_list"
            " WHERE schema = 'main' AND name NOT LIKE 'sqlite_%' AND name != 'alembic_version'"
        )
        assert dict(found.all()) == dict.fromkeys(tables.metadata.tables, 1)
    engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO knowledge_entries VALUES ('1', 'first', 'q', 'a', 'General', 'now', 'now')",
        "INSERT INTO knowledge_entries VALUES ('1', 1, x'00', 'a', 'General', 'now', 'now')",
    ],
)
def test_sqlite_refuses_the_wrong_type(sqlite_url: str, statement: str) -> None:
    engine = open_engine(parse_url(sqlite_url), Access.WRITE)
    with pytest.raises(IntegrityError, match="cannot store"), engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def add_message(records: Records, **changes: Any) -> None:
    records.users.ensure("ada")
    conversation = records.conversations.create("ada", "key:1", "Help")
    records.messages.add(
        conversation.id, **{"role": "customer", "content": "Hello", "state": "received", **changes}
    )


def add_conversation(records: Records, **changes: Any) -> None:
    records.users.ensure("ada")
    conversation = records.conversations.create("ada", "key:1", "Help")
    records.conversations.update(conversation.id, **changes)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "work",
    [
        lambda records: records.conversations.create("nobody", "key:1", "Help"),
        lambda records: records.users.ensure("x" * 129),
        lambda records: add_message(records, role="robot"),
        lambda records: add_message(records, state="lost"),
        lambda records: add_message(records, sentiment="Bored"),
        lambda records: add_message(records, priority=11),
        lambda records: add_message(records, outcome="guessed"),
        lambda records: add_message(records, mode="sung"),
        lambda records: add_message(records, reply_to="nothing"),
        lambda records: add_message(records, content="x" * 65_537),
        lambda records: add_conversation(records, status="forgotten"),
        lambda records: add_conversation(records, priority=0),
        lambda records: add_conversation(records, attempts=-1),
        lambda records: add_conversation(records, title=None),
        lambda records: records.feedback.put("nothing", "nothing", "up"),
        lambda records: records.keys.add("k", "owner", None, "hash"),
        lambda records: records.events.add("x" * 65),
    ],
)
async def test_the_database_refuses_what_makes_no_sense(
    database: Database, work: Callable[[Records], object]
) -> None:
    with pytest.raises(Conflict):
        await database.write(work)
    assert await database.read(lambda records: records.users.list(10)) == []


@pytest.mark.anyio
async def test_the_database_takes_every_word_of_the_domain(database: Database) -> None:
    for outcome in get_args(Outcome):
        await database.write(partial(add_message, outcome=outcome))
    for mode in get_args(Mode):
        await database.write(partial(add_message, mode=mode))


def test_truth_values_are_checked(engine: Engine) -> None:
    with pytest.raises(DBAPIError), engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO users (id, vip, created_at, updated_at) VALUES ('a', 2, 'x', 'x')"
        )


def test_deleting_a_conversation_takes_along_what_belongs_to_it(engine: Engine) -> None:
    with engine.begin() as connection:
        records = Records(connection)
        records.users.ensure("ada")
        kept = records.conversations.create("ada", "key:1", "Kept")
        gone = records.conversations.create("ada", "key:1", "Gone")
        for conversation in (kept, gone):
            question = records.messages.add(conversation.id, "customer", "Hello", "received")
            answer = records.messages.add(
                conversation.id, "assistant", "Hi", "sent", reply_to=question.id
            )
            records.feedback.put(answer.id, conversation.id, "up")
            records.events.add("asked", conversation_id=conversation.id)
    with engine.begin() as connection:
        connection.execute(delete(tables.conversations).where(tables.conversations.c.id == gone.id))
    with engine.begin() as connection:
        assert rows(connection, tables.messages) == 2
        assert rows(connection, tables.feedback) == 1
        assert set(connection.scalars(select(tables.analytics_events.c.conversation_id))) == {
            kept.id,
            None,
        }


AUDIT_CHANGES = (
    "UPDATE audit_log SET actor = 'nobody'",
    "UPDATE audit_log SET details = '{}' WHERE action = 'remote.call'",
    "DELETE FROM audit_log",
    "DELETE FROM audit_log WHERE target = 'api.example'",
    "INSERT INTO audit_log SELECT * FROM audit_log WHERE TRUE"
    " ON CONFLICT (id) DO UPDATE SET actor = 'nobody'",
)
AUDIT_CHANGES_IN = {
    "sqlite": ("INSERT OR REPLACE INTO audit_log SELECT * FROM audit_log",),
    "postgresql": ("TRUNCATE audit_log", "TRUNCATE audit_log CASCADE"),
}


def test_the_audit_log_is_never_changed(engine: Engine) -> None:
    with engine.begin() as connection:
        written = Records(connection).audit.add(
            "appliance", "remote.call", "api.example", {"prompt_chars": 5}
        )
    for statement in AUDIT_CHANGES + AUDIT_CHANGES_IN[engine.dialect.name]:
        with pytest.raises(IntegrityError, match="never changed"), engine.begin() as connection:
            connection.exec_driver_sql(statement)
    with engine.begin() as connection:
        assert list(Records(connection).audit.list(10)) == [written]


@pytest.mark.anyio
async def test_the_audit_log_is_read_newest_first(database: Database) -> None:
    for number, action in enumerate(("remote.call", "remote.result", "remote.call")):
        await database.write(
            partial(
                lambda records, n, done: records.audit.add("appliance", done, "far", {"n": n}),
                n=number,
                done=action,
            )
        )
    everything = await database.read(lambda records: records.audit.list(10))
    assert [entry.details["n"] for entry in everything] == [2, 1, 0]
    calls = await database.read(lambda records: records.audit.list(1, action="remote.call"))
    assert [entry.details for entry in calls] == [{"n": 2}]
    assert calls[0].actor == "appliance"


@pytest.mark.anyio
async def test_folders_may_have_awkward_names(tmp_path: Path) -> None:
    folder = tmp_path / "50% off #1 & ünï"
    folder.mkdir()
    url = f"sqlite:///{folder / 'appliance.db'}"
    migrate.upgrade(url)
    database = Database(url)
    await database.check()
    await database.aclose()
    assert (folder / "appliance.db").stat().st_size > 0

"""Forward, back and forward again on a populated database, no drift, two processes at once, and
refusals."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Engine, Inspector, MetaData, Text, inspect, select, text

from appliance.domain.passage import Article
from appliance.domain.record import Described
from appliance.domain.screening import Finding
from appliance.errors import StorageUnavailable
from appliance.settings import HOME
from appliance.storage import Database, Records, migrate, tables
from appliance.storage.engines import Access, open_engine, parse_url
from appliance.storage.knowledge import digest_of

ARTICLE = Article("1", "How do I reset my password?", "Use the link.", "Account")


def engine_for(url: str) -> Engine:
    return open_engine(parse_url(url), Access.MIGRATE)


def run(url: str, work: Any) -> Any:
    """One transaction on a database of its own."""

    async def main() -> Any:
        database = Database(url)
        try:
            return await database.write(work)
        finally:
            await database.aclose()

    return asyncio.run(main())


def populate(records: Records) -> None:
    records.users.ensure("ada")
    conversation = records.conversations.create("ada", "key:1", "Help")
    question = records.messages.add(conversation.id, "customer", "Hello", "received")
    answer = records.messages.add(
        conversation.id, "assistant", "Hi", "sent", reply_to=question.id, details={"model": "none"}
    )
    records.answers.append(answer, Described({"answer": {}}, {"query": {}}))
    records.feedback.put(answer.id, conversation.id, "up", "Nice")
    records.events.add("asked", conversation_id=conversation.id, user_id="ada")
    records.quarantine.keep_original(ARTICLE)
    records.quarantine.hold(ARTICLE.id, [Finding("answer", "Use the link.", "script", "0" * 64)])
    records.knowledge.save([ARTICLE], replace=True)
    records.keys.add("desk", "agent", None, "hash")
    account = records.accounts.add("ada", "Ada", "agent", "hash")
    records.sessions.add("hash", account.created_at, account_id=account.id, key_id=None)
    records.audit.add("key:1", "model.use", "smollm2-135m", {"from": None})
    records.webhooks.add("https://desk.lan/hook", ["kb.updated"], "sealed")
    records.events.add("kb.updated", data={"version": 1})


def content(url: str) -> dict[str, list[Any]]:
    engine = engine_for(url)
    with engine.begin() as connection:
        found = {
            table.name: [tuple(row) for row in connection.execute(select(table))]
            for table in tables.metadata.sorted_tables
        }
    engine.dispose()
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The migrations in a folder of their own, where a test may add the next release's."""
    folder = tmp_path / "release" / "migrations"
    shutil.copytree(HOME / "migrations", folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrate, "FOLDER", folder)
    return folder


NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "299901010000"
down_revision = {down!r}
branch_labels = None
depends_on = None


def upgrade() -> None:
    {upgrade}


def downgrade() -> None:
    pass
"""


def add_migration(folder: Path, upgrade: str) -> None:
    down = ScriptDirectory(str(folder)).get_current_head()
    (folder / "versions" / "2999-01-01-0000_next.py").write_text(
        NEXT.format(upgrade=upgrade, down=down)
    )


def test_forward_back_and_forward_on_a_populated_database(empty_database_url: str) -> None:
    url = empty_database_url
    assert migrate.current(url) is None
    migrate.upgrade(url)
    assert migrate.current(url) == migrate.head()
    run(url, populate)
    before = content(url)
    assert sum(len(rows) for rows in before.values()) == 19

    migrate.upgrade(url)
    assert content(url) == before

    migrate.downgrade(url, "base")
    assert migrate.current(url) is None
    engine = engine_for(url)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()

    migrate.upgrade(url)
    assert migrate.current(url) == migrate.head()
    run(url, populate)
    assert {name: len(rows) for name, rows in content(url).items()} == {
        name: len(rows) for name, rows in before.items()
    }


def test_an_empty_knowledge_base_has_a_version_and_a_digest(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    version, digest = run(
        empty_database_url,
        lambda records: (records.knowledge.version(), records.knowledge.digest()),
    )
    assert (version, digest) == (0, digest_of([]))


def test_migrations_lead_to_the_tables_of_the_code(database_url: str) -> None:
    engine = engine_for(database_url)
    with engine.begin() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "autogenerate_plugins": [
                    "alembic.autogenerate.*",
                    "alembic.ext.checkconstraint_byname",
                ],
            },
        )
        assert compare_metadata(context, tables.metadata) == []
    engine.dispose()


def described(inspector: Inspector, name: str) -> Any:
    """A table as the database reports it, with the wording of its rules, which Alembic does not
    compare."""
    return {
        "columns": [
            {**column, "type": str(column["type"])}  # types compare by identity
            for column in inspector.get_columns(name)
        ],
        "key": inspector.get_pk_constraint(name),
        "parents": sorted(inspector.get_foreign_keys(name), key=lambda key: key["name"] or ""),
        "unique": sorted(
            inspector.get_unique_constraints(name), key=lambda rule: rule["name"] or ""
        ),
        "checks": sorted(
            inspector.get_check_constraints(name), key=lambda rule: rule["name"] or ""
        ),
        "indexes": sorted(inspector.get_indexes(name), key=lambda index: index["name"] or ""),
        "options": inspector.get_table_options(name),
    }


def test_migrated_and_created_tables_read_the_same(empty_database_url: str) -> None:
    engine = engine_for(empty_database_url)
    migrate.upgrade(empty_database_url)
    migrated = {name: described(inspect(engine), name) for name in tables.metadata.tables}
    migrate.downgrade(empty_database_url, "base")
    with engine.begin() as connection:
        tables.metadata.create_all(connection)
    assert {name: described(inspect(engine), name) for name in tables.metadata.tables} == migrated
    engine.dispose()


UPGRADE = """
import pathlib, sys
from appliance.storage import migrate
migrate.FOLDER = pathlib.Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
migrate.upgrade(sys.argv[1])
"""


def test_processes_may_upgrade_at_once(empty_database_url: str, folder: Path) -> None:
    slow = 'import time; time.sleep(0.3); op.add_column("users", sa.Column("colour", sa.Text))'
    add_migration(folder, slow)
    command = [sys.executable, "-c", UPGRADE, empty_database_url, str(folder)]
    processes = [
        subprocess.Popen(
            command, cwd=HOME, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert migrate.current(empty_database_url) == migrate.head()
    assert len(content(empty_database_url)["knowledge_state"]) == 1


def stamp(url: str, revision: str) -> None:
    engine = engine_for(url)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision}
        )
    engine.dispose()


@pytest.mark.anyio
async def test_a_database_of_a_newer_release_is_left_alone(
    database: Database, database_url: str
) -> None:
    stamp(database_url, "999901010000")
    with pytest.raises(StorageUnavailable, match="newer release"):
        migrate.upgrade(database_url)
    with pytest.raises(StorageUnavailable, match="newer release") as failure:
        await database.check()
    assert "restore the backup" in failure.value.hint
    assert migrate.current(database_url) == "999901010000"


@pytest.mark.anyio
async def test_a_database_without_tables_is_reported(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    migrate.downgrade(empty_database_url, "base")
    database = Database(empty_database_url)
    with pytest.raises(StorageUnavailable, match="not migrated") as failure:
        await database.check()
    assert "appliance db upgrade" in failure.value.hint
    with pytest.raises(StorageUnavailable, match="not migrated"):
        await database.read(lambda records: records.users.list(1))
    await database.aclose()


REBUILD = """with op.batch_alter_table("conversations", recreate="always") as batch:
        batch.add_column(sa.Column("colour", sa.Text))"""


def columns(url: str, table: str) -> set[str]:
    engine = engine_for(url)
    found = {column["name"] for column in inspect(engine).get_columns(table)}
    engine.dispose()
    return found


def test_rebuilding_a_table_keeps_what_hangs_on_it(sqlite_url: str, folder: Path) -> None:
    """With foreign keys on, SQLite would delete every message here without a word."""
    run(sqlite_url, populate)
    before = content(sqlite_url)
    add_migration(folder, REBUILD)
    migrate.upgrade(sqlite_url)
    assert migrate.current(sqlite_url) == migrate.head() == "299901010000"
    assert content(sqlite_url) == before
    assert "colour" in columns(sqlite_url, "conversations")


@pytest.mark.anyio
async def test_a_database_of_an_older_release_is_reported_until_upgraded(
    database: Database, database_url: str, folder: Path
) -> None:
    await database.write(populate)
    before = content(database_url)
    add_migration(folder, 'op.add_column("users", sa.Column("colour", sa.Text))')
    with pytest.raises(StorageUnavailable, match="older than this release"):
        await database.check()
    migrate.upgrade(database_url)
    await database.check()
    assert content(database_url) == before


def test_a_migration_that_would_leave_orphans_is_undone(sqlite_url: str, folder: Path) -> None:
    run(sqlite_url, populate)
    before, revision = content(sqlite_url), migrate.current(sqlite_url)
    add_migration(folder, 'op.execute("DELETE FROM conversations")')
    with pytest.raises(StorageUnavailable, match="nothing was changed"):
        migrate.upgrade(sqlite_url)
    assert (content(sqlite_url), migrate.current(sqlite_url)) == (before, revision)


def test_a_migration_that_fails_half_way_is_undone(database_url: str, folder: Path) -> None:
    run(database_url, populate)
    before, revision = content(database_url), migrate.current(database_url)
    add_migration(folder, 'op.drop_table("api_keys"); op.execute("SELECT * FROM nowhere")')
    with pytest.raises(StorageUnavailable):
        migrate.upgrade(database_url)
    assert (content(database_url), migrate.current(database_url)) == (before, revision)


def test_a_drafted_migration_runs(
    database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = MetaData(naming_convention=tables.metadata.naming_convention)
    for table in tables.metadata.sorted_tables:
        table.to_metadata(metadata)
    metadata.tables["users"].append_column(Column("colour", Text))
    monkeypatch.setattr(tables, "metadata", metadata)

    file = migrate.draft(database_url, "colour of users")

    assert file.parent == folder / "versions"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{4}_colour_of_users\.py", file.name)
    migrate.upgrade(database_url)
    assert "colour" in columns(database_url, "users")
    migrate.downgrade(database_url, "-1")
    assert "colour" not in columns(database_url, "users")

"""Backing up under load, rehearsing, and restoring elsewhere, on both databases."""

from __future__ import annotations

import asyncio
import errno
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.errors import (
    BackupFailed,
    BackupRefused,
    BackupUnsuited,
    Conflict,
    NotFound,
    StorageFull,
    StorageUnavailable,
)
from appliance.operations.backup import archive, candidates, making, rehearsal, standing
from appliance.operations.backup import folder as folders
from appliance.operations.backup.archive import Archive
from appliance.operations.backup.making import make
from appliance.operations.backup.rehearsal import rehearse
from appliance.operations.backup.restoring import PROCESSES, restore
from appliance.operations.locks import hold_lock
from appliance.services.access import OPERATOR, Access
from appliance.services.answer_records import AnswerRecords
from appliance.services.conversations import Conversations
from appliance.settings import Settings
from appliance.storage import dumps, migrate
from appliance.storage.engines import parse_url
from tests.chaos.disks import SmallDisk
from tests.integration.backup_desk import (
    QUESTIONS,
    Customers,
    found,
    opened,
    serving,
    settings_of,
    tree,
)

pytestmark = pytest.mark.anyio

PASSPHRASE = "correct horse battery staple"


@pytest.fixture(params=["sqlite", "postgresql"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Settings, Settings]:
    """The settings of a desk and of a fresh machine, with databases of the same kind."""
    if request.param == "sqlite":
        return settings_of(tmp_path / "here", "sqlite"), settings_of(tmp_path / "there", "sqlite")
    here = request.getfixturevalue("postgresql_url")
    there = request.getfixturevalue("empty_postgresql_url")
    return settings_of(tmp_path / "here", here), settings_of(tmp_path / "there", there)


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    """A desk on SQLite, for what has nothing to do with databases."""
    return settings_of(tmp_path / "here", "sqlite")


@pytest.fixture
def there(tmp_path: Path) -> Settings:
    """A fresh machine."""
    return settings_of(tmp_path / "there", "sqlite")


async def small_backup(settings: Settings, **options: object) -> making.Backup:
    """A desk of two conversations, backed up."""
    async with serving(settings) as desk:
        await Customers(desk.answers, desk).ask(2)
        return await make(settings, **options)  # type: ignore[arg-type]


# --- the drill ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "count", [200, pytest.param(10_000, marks=[pytest.mark.full, pytest.mark.timeout(1_800)])]
)
async def test_a_desk_under_load_is_backed_up_and_restored_elsewhere(
    places: tuple[Settings, Settings], count: int, show: Callable[[object], None]
) -> None:
    here, there = places
    async with serving(here) as desk:
        customers = Customers(desk.answers, desk)
        await customers.ask(count)
        key = await Access(desk.database).create_key("customer")
        stop = asyncio.Event()
        writing = asyncio.create_task(customers.keep_asking(stop))
        while len(customers.answered) < count + 5:
            await asyncio.sleep(0.01)
        before = dict(customers.answered)
        backup = await make(here)
        during = len(customers.answered) - len(before)
        stop.set()
        await writing
        assert during > 0, "nobody wrote while the backup was made"
        rehearsal = await rehearse(here, backup.path)
        assert rehearsal.findings == []
        assert rehearsal.records >= len(before)

        restored = await restore(there, backup.path)
        assert restored.findings == []
        # Equal to the backed-up moment, but for the note of the restore itself.
        sums, then = found(there).tables, backup.manifest.tables
        assert sums.keys() == then.keys()
        assert sums["audit_log"].rows == then["audit_log"].rows + 1
        same = [name for name in sums if name != "audit_log"]
        assert [(n, sums[n].rows, sums[n].sha256) for n in same] == [
            (n, then[n].rows, then[n].sha256) for n in same
        ]
        # What was answered before the backup began is there, to the letter.
        async with opened(there) as database:
            verdict = await AnswerRecords(database).verify()
            assert verdict.sound, verdict.findings
            assert verdict.head == backup.manifest.answers
            for conversation in before:
                ours = await desk.messages(conversation)
                theirs = await database.read(
                    lambda r, conversation=conversation: r.messages.list(conversation)
                )
                assert ours == list(theirs)
            principal = await Access(database).authenticate(key.key)
            assert principal.role == "customer"
            shown = await Conversations(database).messages(OPERATOR, next(iter(before)))
            assert shown[0].content in QUESTIONS
    rows = sum(each.rows for each in then.values())
    show(
        f"{here.database_url[:10] or 'sqlite'}: {count} conversations, {rows} rows, "
        f"{backup.size / 1e6:.1f} MB in {backup.seconds:.1f} s while {during} more were answered; "
        f"rehearsed in {rehearsal.seconds:.1f} s, restored in {restored.seconds:.1f} s"
    )
    # And the restored desk answers.
    async with serving(there) as desk:
        result = await desk.ask(QUESTIONS[0], user="new")
        assert result.metadata.outcome == "answered"


# --- refusals: nothing changes --------------------------------------------------------------------


async def test_a_running_appliance_is_not_replaced(here: Settings, there: Settings) -> None:
    backup = await small_backup(here)
    for name in PROCESSES:
        there.data_dir.mkdir(parents=True, exist_ok=True)
        with hold_lock(there.data_dir / name):
            with pytest.raises(Conflict) as refused:
                await restore(there, backup.path, replace=True)
            assert "is running" in refused.value.detail
    assert tree(there.data_dir) == {}


async def test_a_desk_is_not_replaced_unasked_and_kept_aside_when_asked(
    places: tuple[Settings, Settings],
) -> None:
    here, there = places
    backup = await small_backup(here)
    async with serving(there) as desk:
        await desk.ask(QUESTIONS[0], user="somebody-else")
    before = found(there)
    files = tree(there.data_dir)
    with pytest.raises(Conflict) as refused:
        await restore(there, backup.path)
    assert "--replace" in refused.value.hint
    assert found(there) == before
    assert {n: h for n, h in tree(there.data_dir).items() if "appliance.db" not in n} == {
        n: h for n, h in files.items() if "appliance.db" not in n
    }

    restored = await restore(there, backup.path, replace=True)
    assert found(there).tables["users"] == found(here).tables["users"]
    # The old desk is whole where it was put.
    assert restored.aside is not None
    if there.database_url:
        name = restored.aside.removeprefix("database ")
        old = settings_of(there.data_dir.parent, there.database_url.replace(_name(there), name))
    else:
        old = settings_of(there.data_dir.parent, "sqlite", data_dir=Path(restored.aside))
    assert found(old) == before


def _name(settings: Settings) -> str:
    matched = re.search(r"/(test_\w+)\?", settings.database_url)
    assert matched
    return matched[1]


async def test_a_fresh_installation_is_no_desk(here: Settings, there: Settings) -> None:
    """The installer makes a database and a key before anybody can restore."""
    backup = await small_backup(here)
    there.data_dir.mkdir(parents=True)
    migrate.upgrade(there.resolved_database_url)
    async with opened(there) as database:
        await Access(database).create_key("admin")
    await restore(there, backup.path)
    assert found(there).tables["users"].rows == 2


async def test_a_backup_of_a_newer_release_is_refused(
    places: tuple[Settings, Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = places
    with monkeypatch.context() as newer:
        release = tmp_path / "migrations"
        shutil.copytree(migrate.FOLDER, release, ignore=shutil.ignore_patterns("__pycache__"))
        (release / "versions" / "2999-01-01-0000_next.py").write_text(
            "from alembic import op\n"
            f"revision = '299901010000'\ndown_revision = {migrate.head()!r}\n"
            "branch_labels = None\ndepends_on = None\n\n"
            "def upgrade():\n    op.execute('CREATE TABLE later (id INTEGER PRIMARY KEY)')\n"
        )
        newer.setattr(migrate, "FOLDER", release)
        here.data_dir.mkdir(parents=True)
        migrate.upgrade(here.resolved_database_url)
        backup = await make(here)
        assert backup.manifest.revision == "299901010000"
    # It says nothing of the backup, which may be sound.
    with pytest.raises(BackupUnsuited):
        await rehearse(there, backup.path)
    with pytest.raises(BackupRefused) as refused:
        await restore(there, backup.path)
    assert "299901010000" in refused.value.detail
    assert tree(there.data_dir) == {}


async def test_a_backup_of_an_older_release_is_brought_forward(
    places: tuple[Settings, Settings],
) -> None:
    here, there = places
    async with serving(here) as desk:
        await Customers(desk.answers, desk).ask(2)
    before = found(here)
    migrate.downgrade(here.resolved_database_url, "202611241040")
    backup = await make(here)
    assert backup.manifest.revision == "202611241040"
    assert (await rehearse(here, backup.path)).sound
    restored = await restore(there, backup.path)
    assert restored.revision == migrate.head() == found(there).revision
    assert found(there).tables["messages"] == before.tables["messages"]


async def test_the_other_kind_of_database_is_refused(
    here: Settings, postgresql_url: str, tmp_path: Path
) -> None:
    backup = await small_backup(here)
    server = settings_of(tmp_path / "server", postgresql_url)
    with pytest.raises(BackupRefused):
        await restore(server, backup.path)
    with pytest.raises(NotFound):
        await restore(server, tmp_path / "nothing.tar")


# --- damaged and hostile databases in a backup that is whole in itself ----------------------------


def forged(backup: making.Backup, target: Path, *statements: str) -> Path:
    """The backup with statements done to its database, and every hash made to fit again."""
    import msgspec

    from appliance.operations.backup import archive as archives
    from appliance.operations.backup.manifest import Member, Table
    from appliance.storage import snapshots

    with Archive.open(backup.path) as archive:
        target.mkdir()
        members = archive.unpack(target)
        manifest = archive.manifest
    database = members["database.sqlite"]
    connection = sqlite3.connect(database, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()
    with snapshots.reading_copy(database) as copy:
        facts = snapshots.facts(copy)
    changed = msgspec.structs.replace(
        manifest,
        tables={name: Table(each.rows, each.sha256) for name, each in facts.tables.items()},
        members=[
            Member(name, path.stat().st_size, archives.digest(path))
            for name, path in members.items()
        ],
    )
    file = target / "forged.tar"
    archives.write(file, changed, members)
    return file


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            "CREATE TRIGGER thief AFTER INSERT ON messages BEGIN DELETE FROM audit_log; END",
            "trigger thief",
        ),
        ("CREATE VIEW peek AS SELECT * FROM api_keys", "view peek"),
        ("DROP TRIGGER audit_log_no_delete", "trigger audit_log_no_delete"),
        ("DELETE FROM users WHERE id = 'customer-0'", "belongs to nothing"),
    ],
)
async def test_a_schema_of_somebody_else_is_refused(
    here: Settings, there: Settings, tmp_path: Path, statement: str, says: str
) -> None:
    file = forged(await small_backup(here), tmp_path / "forged", statement)
    rehearsal = await rehearse(here, file)
    assert not rehearsal.sound
    assert says in " ".join(rehearsal.findings)
    with pytest.raises(BackupRefused):
        await restore(there, file)
    assert tree(there.data_dir) == {}


async def test_changed_words_show_in_the_chain_and_do_not_keep_a_desk_from_coming_back(
    here: Settings, there: Settings, tmp_path: Path
) -> None:
    """Whoever restores after a disaster needs the desk, and has to be told."""
    file = forged(
        await small_backup(here),
        tmp_path / "forged",
        "UPDATE messages SET content = 'Something else.' WHERE role = 'assistant'",
    )
    rehearsal = await rehearse(here, file)
    assert "was changed" in rehearsal.findings[0]
    restored = await restore(there, file)
    assert "was changed" in restored.findings[0]


# --- full disks, missing tools --------------------------------------------------------------------


@pytest.mark.parametrize("room", ["none", "the copy", "looked"])
async def test_a_full_disk_leaves_the_last_good_backup(
    here: Settings, tmp_path: Path, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SmallDisk(tmp_path / "disk", 24)
    try:
        good = await small_backup(here, out=disk.folder)
        if room != "looked":
            monkeypatch.setattr(making, "_require_room", lambda settings, folder: None)
        size = good.manifest.size
        disk.fill(leave={"none": 4_096, "the copy": size + 65_536, "looked": 0}[room])
        with pytest.raises(BackupFailed) as failed:
            await make(here, disk.folder)
        assert failed.value.hint
        disk.free()
        whole, damaged = folders.listed(disk.folder, standing.read(here))
        assert [each.path for each in whole] == [good.path]
        assert damaged == []
        assert [path.name for path in disk.folder.iterdir()] == [good.path.name]
        assert (await rehearse(here, good.path)).sound
        told = standing.read(here)
        assert told.last is not None
        assert told.failed is not None
        assert (await make(here, disk.folder)).path != good.path
        assert standing.read(here).failed is None
    finally:
        disk.remove()


async def test_a_full_disk_of_the_data_does_not_fail_a_backup_elsewhere(
    here: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, document: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(standing, "write_json", full)
    (tmp_path / "elsewhere").mkdir()
    assert (await small_backup(here, out=tmp_path / "elsewhere")).path.exists()


async def test_what_is_not_the_backups_fault_is_not_noted_as_its_own(
    here: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = await small_backup(here, passphrase=PASSPHRASE)
    with pytest.raises(BackupUnsuited):
        await rehearse(here, backup.path, passphrase="another passphrase")
    with hold_lock(here.data_dir / "rehearsal.lock"), pytest.raises(Conflict):
        await rehearse(here, backup.path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(archive.os, "fsync", full)
        with pytest.raises(StorageFull):
            await rehearse(here, backup.path)
    with monkeypatch.context() as disk:
        little = shutil.disk_usage(here.data_dir)._replace(free=backup.manifest.size)
        disk.setattr(rehearsal.shutil, "disk_usage", lambda folder: little)
        with pytest.raises(StorageFull, match="nothing was changed"):
            await rehearse(here, backup.path)
    assert standing.read(here).rehearsals == []
    # A whole database that a killed rehearsal left.
    left = here.data_dir / ".rehearsal-killed"
    left.mkdir()
    (left / "0000.member").write_bytes(b"words of customers")
    assert (await rehearse(here, backup.path)).sound
    assert not left.exists()


async def test_a_server_holds_no_more_than_one_rehearsal(
    postgresql_url: str, tmp_path: Path
) -> None:
    here = settings_of(tmp_path, postgresql_url)
    backup = await small_backup(here)
    present = parse_url(here.resolved_database_url)
    left = present.set(database=candidates.beside(present, candidates.TRIAL))
    dumps.create(left)
    assert (await rehearse(here, backup.path)).sound
    assert not dumps.exists(left)


async def test_room_is_asked_for_a_database_on_a_server(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = settings_of(tmp_path, postgresql_url)
    here.data_dir.mkdir(parents=True)
    monkeypatch.setattr(making.whole, "size", lambda url: 2**60)
    with pytest.raises(BackupFailed, match="needs"):
        await make(here)


async def test_without_pg_dump_it_says_so(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path, postgresql_url)
    settings.data_dir.mkdir(parents=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StorageUnavailable) as missing:
        await make(settings)
    assert "pg_dump is not on this machine" in missing.value.detail
    assert "client programs" in missing.value.hint
    assert standing.read(settings).failed is not None


async def test_a_user_who_may_not_make_databases_is_told(
    postgresql_url: str,
    empty_postgresql_url: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    here = settings_of(tmp_path / "here", postgresql_url)
    there = settings_of(tmp_path / "there", empty_postgresql_url)
    backup = await small_backup(here)
    administration = request.getfixturevalue("_administration")
    administration.execute("CREATE ROLE humble LOGIN")
    try:
        humble = settings_of(
            there.data_dir.parent, there.database_url.replace("//desk@", "//humble@")
        )
        with pytest.raises(StorageUnavailable) as refused:
            await restore(humble, backup.path)
        assert "CREATEDB" in refused.value.hint
    finally:
        administration.execute("DROP ROLE humble")


# --- secrets --------------------------------------------------------------------------------------


async def test_secrets_stay_home_unless_asked_for(here: Settings, there: Settings) -> None:
    async with serving(here) as desk:
        await desk.database.write(
            lambda r: r.webhooks.add("https://desk.lan/hook", ["kb.updated"], "sealed")
        )
        plain = await make(here)
        sealed = await make(here, passphrase=PASSPHRASE)
    secret = (here.data_dir / "secrets" / "webhooks").read_bytes()
    for backup in (plain, sealed):
        assert secret not in backup.path.read_bytes()
        assert PASSPHRASE.encode() not in backup.path.read_bytes()

    told = await restore(there, plain.path)
    signed = [each for each in told.advice if "signed with secrets" in each.what]
    assert "appliance webhooks rotate" in signed[0].todo
    assert not (there.data_dir / "secrets" / "webhooks").exists()

    with pytest.raises(BackupRefused):
        await restore(there, sealed.path, passphrase="another passphrase", replace=True)
    told = await restore(there, sealed.path, passphrase=PASSPHRASE, replace=True)
    assert (there.data_dir / "secrets" / "webhooks").read_bytes() == secret
    assert not [each for each in told.advice if "signed with secrets" in each.what]
    with pytest.raises(BackupRefused):
        await restore(there, plain.path, passphrase=PASSPHRASE, replace=True)


async def test_files_of_the_desk_go_along_and_machine_files_do_not(
    here: Settings, there: Settings
) -> None:
    async with serving(here):
        for name in ("weights/model.gguf", "index/index.json", "queue.db", "odd/file.txt"):
            path = here.data_dir / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("x")
        backup = await make(here)
    assert backup.manifest.left_out == ["odd/file.txt"]
    told = await restore(there, backup.path)
    assert (there.data_dir / "heads" / "learned-0001.npz").read_bytes() == b"numbers"
    assert not (there.data_dir / "weights").exists()
    assert any("odd/file.txt" in each.what for each in told.advice)

"""What an upgrade is made of: the link, the units, the services' seam, the database as a whole."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import ApplianceError, Conflict, InvalidInput, NotFound
from appliance.operations.release import units
from appliance.operations.release.data import MigrationRefused, _copy, data_of, hash_of
from appliance.operations.release.journal import Journal
from appliance.operations.release.layout import Layout
from appliance.operations.release.services import ServiceError
from appliance.operations.release.systemd import RECOVERY, Systemd
from appliance.storage import Database, migrate, whole
from tests.install.trees import staged

# --- the link -----------------------------------------------------------------------------------


def test_whoever_looks_sees_a_release(tmp_path: Path) -> None:
    layout = staged(tmp_path, "1", "2")
    layout.switch("1")
    seen, over = set(), threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.add((layout.current / ".venv/bin/appliance").exists())

    looking = threading.Thread(target=look)
    looking.start()
    for number in range(200):
        layout.switch(str(number % 2 + 1))
    over.set()
    looking.join()
    assert seen == {True}
    assert not layout.current.readlink().is_absolute()


def test_versions_do_not_lead_elsewhere(tmp_path: Path) -> None:
    layout = staged(tmp_path, "1")
    for name in ("..", "a/b", "", ".hidden", "1\n"):
        with pytest.raises(InvalidInput):
            layout.switch(name)
    with pytest.raises(NotFound):
        layout.switch("2")
    assert layout.version is None


def test_what_root_acts_upon_is_nobody_elses(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for path in (layout.journal, layout.log, layout.probation, layout.backups, layout.run):
        # Whoever owns the state may rename whatever lies in it.
        assert not path.is_relative_to(layout.state)
    umask = os.umask(0o077)
    try:
        layout.make_notes()
    finally:
        os.umask(umask)
    # Services look for `probation`.
    assert layout.notes.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    "name", ["../appliance.service", "appliance/../../x.service", "sshd.service", "appliance.sh"]
)
def test_only_units_of_ours_are_put_in_place(name: str, tmp_path: Path) -> None:
    layout = staged(tmp_path, "1")
    wanted = units.shipped(layout, "1")
    with pytest.raises(InvalidInput, match="no unit"):
        units.put(layout, {**wanted, name: b"[Service]\nExecStart=/bin/sh\n"})
    assert units.installed(layout) == {}


# --- units and systemd --------------------------------------------------------------------------

FAKE = """#!/bin/sh
echo "$*" >>{folder}/calls
case "$1" in
    is-active) cat {folder}/state ;;
    start)
        [ ! -e {folder}/refuse ] || {{ echo "Unit is masked." >&2; exit 1; }}
        echo active >{folder}/state ;;
    stop) [ -e {folder}/stubborn ] || echo inactive >{folder}/state ;;
esac
"""


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a ``systemctl`` keeps its calls and state; ``refuse`` and ``stubborn`` in
    it make it one that does not start, or stop, anything."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "state").write_text("inactive\n")
    (folder / "calls").touch()
    program = folder / "systemctl"
    program.write_text(FAKE.format(folder=folder))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def calls(folder: Path) -> list[str]:
    """Orders so far, by their first word."""
    return [line.split()[0] for line in (folder / "calls").read_text().splitlines()]


def test_systemd_is_told_in_the_right_order(tmp_path: Path, systemctl: Path) -> None:
    layout = staged(tmp_path / "root", "1")
    services = Systemd(layout)
    wanted = {**units.shipped(layout, "1"), RECOVERY: b"[Install]\nWantedBy=multi-user.target\n"}
    local = layout.units / "appliance-api.service.d"
    local.mkdir(parents=True)
    (local / "local.conf").write_text("[Service]\n")
    assert services.install_units(wanted)
    assert not services.install_units(wanted)
    services.enable()
    services.start()
    assert services.is_running()
    assert calls(systemctl) == ["daemon-reload", "enable", "reset-failed", "start", "is-active"]
    enabled, ordered = (
        next(
            line for line in (systemctl / "calls").read_text().splitlines() if line.startswith(verb)
        )
        for verb in ("enable", "start")
    )
    assert RECOVERY in enabled
    # Whoever gives these orders may be it.
    assert RECOVERY not in ordered
    assert "--no-block" in ordered
    services.stop()
    assert not services.is_running()
    services.remove_units()
    assert units.installed(layout) == {}
    assert (local / "local.conf").exists()
    assert calls(systemctl)[-2:] == ["disable", "daemon-reload"]


def test_a_trial_enables_nothing(tmp_path: Path, systemctl: Path) -> None:
    layout = staged(tmp_path / "root", "1")
    services = Systemd(layout)
    services.install_units(units.shipped(layout, "1"))
    services.start()
    assert "enable" not in calls(systemctl)


def test_services_that_do_not_obey_are_told(tmp_path: Path, systemctl: Path) -> None:
    layout = staged(tmp_path / "root", "1")
    services = Systemd(layout)
    with pytest.raises(ServiceError):
        services.start()
    services.install_units(units.shipped(layout, "1"))
    (systemctl / "refuse").touch()
    with pytest.raises(ServiceError, match="masked"):
        services.start()
    (systemctl / "refuse").unlink()
    services.start()
    (systemctl / "stubborn").touch()
    with pytest.raises(ServiceError, match="still run"):
        services.stop()


def test_systemd_reads_the_units_that_are_put_in_place(tmp_path: Path) -> None:
    layout = staged(tmp_path / "root", "1")
    layout.switch("1")
    program = tmp_path / "true"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    adjusted = {
        name: re.sub(
            rb"/opt/appliance/current/\.venv/bin/appliance", str(program).encode(), content
        )
        for name, content in units.shipped(layout, "1").items()
    }
    assert units.put(layout, adjusted)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(layout.units.iterdir()))],
        capture_output=True,
        text=True,
    )
    assert [line for line in done.stderr.splitlines() if "appliance" in line] == []


# --- the database as a whole --------------------------------------------------------------------


async def _write(url: str, count: int = 3) -> None:
    database = Database(url)
    try:
        for number in range(count):
            await database.write(lambda records, n=number: records.users.ensure(f"user-{n}"))
    finally:
        await database.aclose()


@pytest.mark.anyio
async def test_what_was_undone_is_what_was_before(database_url: str, tmp_path: Path) -> None:
    await _write(database_url)
    before, form = whole.digest(database_url), migrate.current(database_url)
    data = data_of(database_url)
    data.preflight(tmp_path)
    folder = tmp_path / "20990101T000000"
    folder.mkdir()
    backup = data.back_up(folder)
    data.stage(None)
    data.take_over(backup)
    await _write(database_url, 9)
    assert whole.digest(database_url) != before
    for _ in range(2):
        data.restore(backup)
        assert whole.digest(database_url) == before
        assert migrate.current(database_url) == form
    if "file" in backup:
        whole.settle(database_url)
        assert hash_of(tmp_path / "appliance.db") == backup["sha256"]


@pytest.mark.anyio
async def test_signs_of_life_are_no_content(database_url: str) -> None:
    await _write(database_url)
    before = whole.digest(database_url)
    database = Database(database_url)
    try:
        await database.write(lambda records: records.heartbeats.beat("api"))
        await database.write(
            lambda records: records.audit.add("appliance", whole.START, "1.0.0", {})
        )
        assert whole.digest(database_url) == before
        await database.write(lambda records: records.users.ensure("another"))
        assert whole.digest(database_url) != before
    finally:
        await database.aclose()


@pytest.mark.anyio
async def test_a_migration_that_loses_rows_is_refused(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate.upgrade(empty_database_url)
    await _write(empty_database_url)
    before = whole.digest(empty_database_url)
    data = data_of(empty_database_url)
    folder = tmp_path / "20990101T000000"
    folder.mkdir()
    backup = data.back_up(folder)
    upgrade = migrate.upgrade

    def losing(url: str, revision: str = "head") -> None:
        upgrade(url, revision)
        migrate.downgrade(url, "base")
        upgrade(url, revision)

    monkeypatch.setattr(migrate, "upgrade", losing)
    monkeypatch.setattr(migrate, "head", lambda: "another")
    with pytest.raises(MigrationRefused, match="users had 3 rows and has 0"):
        data.stage(None)
    data.restore(backup)
    assert whole.digest(empty_database_url) == before


def test_a_full_disk_stops_an_upgrade_before_it_begins(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(sqlite_url)
    size = whole.size(sqlite_url)
    total = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: total._replace(free=3 * size - 1))
    with pytest.raises(Conflict, match="3 times the database"):
        data.preflight(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: total._replace(free=3 * size))
    data.preflight(tmp_path)
    # The notes lie on another disk, with room for one copy.
    notes = tmp_path / "notes"
    for free in (size, size - 1):
        monkeypatch.setattr(
            shutil,
            "disk_usage",
            lambda path, f=free: total._replace(free=f if path == notes else 3 * size),
        )
        if free < size:
            with pytest.raises(Conflict, match="1 times the database"):
                data.preflight(notes)
        else:
            data.preflight(notes)


def test_a_damaged_backup_is_not_put_back(sqlite_url: str, tmp_path: Path) -> None:
    data: Any = data_of(sqlite_url)
    folder = tmp_path / "backup"
    folder.mkdir()
    backup = data.back_up(folder)
    kept = folder / backup["file"]
    kept.write_bytes(kept.read_bytes() + b"!")
    (tmp_path / "appliance.db").write_bytes(b"")
    with pytest.raises(ApplianceError, match="damaged"):
        data.restore(backup)


def test_no_link_of_the_desks_user_is_followed(sqlite_url: str, tmp_path: Path) -> None:
    data = data_of(sqlite_url)
    file, folder, other = tmp_path / "appliance.db", tmp_path / "backup", tmp_path / "other"
    folder.mkdir()
    backup = data.back_up(folder)
    other.write_bytes(b"of somebody else")
    (tmp_path / "appliance.db.next").symlink_to(other)
    file.write_bytes(b"")
    data.restore(backup)
    assert not file.is_symlink()
    assert hash_of(file) == backup["sha256"]
    assert other.read_bytes() == b"of somebody else"

    # One that appears between the two steps of the above.
    (tmp_path / "planted").symlink_to(other)
    _copy(file, tmp_path / "planted")
    assert other.read_bytes() == b"of somebody else"

    file.rename(tmp_path / "real.db")
    file.symlink_to(tmp_path / "real.db")
    with pytest.raises(ApplianceError, match="is a link"):
        data.preflight(tmp_path)
    with pytest.raises(ApplianceError, match="is a link"):
        data.back_up(folder)


# --- the journal --------------------------------------------------------------------------------


def test_a_journal_of_another_form_is_not_guessed_at(tmp_path: Path) -> None:
    layout = staged(tmp_path)
    journal = Journal(layout)
    assert journal.read() is None
    entry = journal.begin("upgrade", "1", "2")
    journal.enter(entry, "quiesce", quiesced_at=1.0)
    assert journal.read() == entry
    text = layout.journal.read_text()
    for changed in (
        text.replace('"format": 1', '"format": 9'),
        text.replace(f'"id": "{entry.id}"', '"id": "../../../etc"'),
        text.replace('"phase": "quiesce"', '"phase": "another"'),
    ):
        assert changed != text
        layout.journal.write_text(changed)
        with pytest.raises(ApplianceError, match="journal"):
            journal.read()

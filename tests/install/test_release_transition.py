"""One release taking another's place, step by step, with services that only remember their orders:
what is undone a second time, what is in nobody's way, and who is let in when."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from appliance.cli.main import cli
from appliance.cli.release import _tell
from appliance.errors import ApplianceError, Conflict
from appliance.operations.release import door, transition, units
from appliance.operations.release.data import data_of
from appliance.operations.release.journal import Entry, Journal
from appliance.operations.release.layout import Layout
from appliance.operations.release.probe import Baseline
from appliance.operations.release.transition import Plan, Transition
from appliance.settings import Settings
from appliance.storage import Database, migrate, whole
from tests.install.trees import staged

OLD, NEW = "1", "2"


class Orders:
    """Services that obey, and what they were told."""

    name = log = "orders"

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.given: list[str] = []
        self.running = True

    def start(self) -> None:
        self.given.append("start")
        self.running = True

    def enable(self) -> None:
        self.given.append("enable")

    def stop(self) -> None:
        self.given.append("stop")
        self.running = False

    def is_running(self) -> bool:
        return self.running

    def install_units(self, wanted: Mapping[str, bytes]) -> bool:
        self.given.append("units")
        return units.put(self._layout, wanted)

    def remove_units(self) -> None:
        units.put(self._layout, {})


class Desk:
    """A populated database, two releases, and their transition."""

    def __init__(self, root: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = staged(root, OLD, NEW)
        self.layout.switch(OLD)
        units.put(self.layout, units.shipped(self.layout, OLD))
        self.url = url
        self.settings = Settings(data_dir=self.layout.state, database_url=url, runtime_dir=None)
        self.settings.data_dir.mkdir(parents=True)
        self.orders = Orders(self.layout)
        self.said: list[str] = []
        self._patch = monkeypatch
        self.set(services_of=lambda layout, settings: self.orders, measure=lambda _: Baseline())
        self.set(probe=lambda *_, **__: None, wait_until_ready=lambda *_, **__: None)
        self.set(version_serving=lambda _: self.layout.version)
        self.set(wait_until_quiet=lambda *_, **__: None)
        self.door = True
        monkeypatch.setattr(Transition, "_wait_for_door", lambda _: self.door)

    def set(self, **names: Callable[..., Any]) -> None:
        """Replace what a transition uses of the world of processes."""
        for name, value in names.items():
            self._patch.setattr(transition, name, value)

    @property
    def work(self) -> Transition:
        """As a new process has it."""
        return Transition(self.layout, self.settings, self.said.append)

    def upgrade(self, plan: Plan | None = None) -> Entry:
        """To the new release."""
        form = migrate.head()
        return self.work.run("upgrade", OLD, NEW, schema=form, plan=lambda: plan or Plan())

    def undo(self, *, start: bool = True) -> Entry:
        """As a guardian does it."""
        entry = self.work.journal.read()
        assert entry is not None
        self.work.undo(entry, "it failed", start=start)
        return entry

    @property
    def content(self) -> str:
        return whole.digest(self.url)

    async def write(self, name: str) -> None:
        """Somebody comes."""
        database = Database(self.url)
        try:
            await database.write(lambda records: records.users.ensure(name))
        finally:
            await database.aclose()


@pytest.fixture
async def desk(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(tmp_path / "root", database_url, monkeypatch)
    await made.write("user")
    return made


def fails(*_: Any, **__: Any) -> None:
    raise ApplianceError("made up")


# --- undone twice -------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_what_was_written_after_an_undo_stays(desk: Desk) -> None:
    before = desk.content
    desk.set(probe=fails)
    with pytest.raises(ApplianceError, match="made up"):
        desk.upgrade()
    await desk.write("lost with the trial")
    desk.set(wait_until_ready=fails)
    with pytest.raises(ApplianceError, match="made up"):
        desk.undo()
    # Started, and found to be slow: customers may be in.
    assert desk.content == before
    assert not desk.layout.probation.exists()
    await desk.write("another")
    written = desk.content
    desk.set(wait_until_ready=lambda *_: None)
    assert desk.undo().outcome == "undone"
    assert desk.content == written != before
    assert desk.layout.version == OLD
    assert list(desk.layout.backups.iterdir()) == []


@pytest.mark.anyio
async def test_a_backup_that_nobody_needs_any_more_goes(desk: Desk) -> None:
    left = desk.layout.backups / "20200101T000000"
    left.mkdir(parents=True)
    (left / "appliance.db").touch()
    done = desk.upgrade()
    assert done.outcome == "done"
    assert [folder.name for folder in desk.layout.backups.iterdir()] == [done.id]


# --- the database stays -------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_database_that_is_kept_is_nobodys_copy(desk: Desk) -> None:
    done = desk.upgrade(Plan(keep=True))
    assert done.outcome == "done"
    assert desk.layout.version == NEW
    await desk.write("another")
    # Forgetting it later takes nothing away.
    data_of(desk.url).discard(done.facts["backup"])
    assert migrate.current(desk.url) == migrate.head()


@pytest.mark.anyio
async def test_a_database_that_is_kept_is_there_after_an_undo(desk: Desk) -> None:
    before = desk.content
    desk.set(probe=fails)
    with pytest.raises(ApplianceError, match="made up"):
        desk.upgrade(Plan(keep=True))
    assert desk.undo().outcome == "undone"
    assert desk.content == before


# --- files that the desk has learnt -------------------------------------------------------------


@pytest.mark.anyio
async def test_what_was_learnt_is_put_back_through_no_link(desk: Desk, tmp_path: Path) -> None:
    heads, other = desk.layout.state / "heads", tmp_path / "other"
    heads.mkdir()
    (heads / "learning.json").write_text("before")
    other.mkdir()
    (other / "secret").write_text("of somebody else")
    (heads / "link").symlink_to(other / "secret")
    if os.geteuid() == 0:
        os.chown(desk.layout.state, 64001, 64001)
    desk.set(probe=fails)
    with pytest.raises(ApplianceError, match="made up"):
        desk.upgrade()
    # The user of the services, meanwhile, or an undo that was killed.
    shutil.rmtree(heads)
    heads.symlink_to(other)
    assert desk.undo().outcome == "undone"
    assert not heads.is_symlink()
    assert (heads / "learning.json").read_text() == "before"
    assert (other / "secret").read_text() == "of somebody else"
    assert {path.name for path in other.iterdir()} == {"secret"}
    owner = desk.layout.state.stat().st_uid
    assert {path.lstat().st_uid for path in (heads, *heads.iterdir())} == {owner}
    assert (other / "secret").stat().st_uid == os.geteuid()


@pytest.mark.anyio
async def test_what_a_link_leads_to_is_not_kept(desk: Desk, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "secret").write_text("of somebody else")
    (desk.layout.state / "heads").symlink_to(other)
    done = desk.upgrade()
    assert not (desk.layout.backups / done.id / "heads").exists()


# --- somebody does not stop ---------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("stops", [True, False])
async def test_who_does_not_stop_keeps_nobody_from_starting(desk: Desk, stops: bool) -> None:
    def busy(*_: Any) -> None:
        raise Conflict("a worker run by hand")

    desk.set(wait_until_quiet=busy)
    if not stops:
        desk.orders.stop = busy  # type: ignore[method-assign]
    with pytest.raises(Conflict, match="by hand"):
        desk.upgrade()
    assert desk.undo().outcome == "undone"
    assert desk.orders.given[-1] == "start"
    assert desk.layout.version == OLD


@pytest.mark.anyio
async def test_nothing_is_put_back_below_somebody_who_writes(desk: Desk) -> None:
    def busy(*_: Any) -> None:
        raise Conflict("a worker run by hand")

    desk.set(probe=fails)
    with pytest.raises(ApplianceError, match="made up"):
        desk.upgrade()
    desk.set(wait_until_quiet=busy)
    trial = desk.content
    with pytest.raises(Conflict, match="by hand"):
        desk.undo()
    assert desk.content == trial
    assert desk.layout.probation.exists()


# --- who is let in when -------------------------------------------------------------------------


@pytest.mark.anyio
async def test_nobody_is_let_in_from_the_first_backup_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut: dict[str, bool] = {}
    enter, stop = Journal.enter, desk.orders.stop

    def entering(self: Journal, entry: Entry, phase: str, **facts: Any) -> None:
        enter(self, entry, phase, **facts)
        shut[phase] = desk.layout.probation.exists()

    def stopping() -> None:
        shut["stop"] = desk.layout.probation.exists()
        stop()

    monkeypatch.setattr(Journal, "enter", entering)
    desk.orders.stop = stopping  # type: ignore[method-assign]
    assert desk.upgrade().outcome == "done"
    assert {phase for phase in shut if not shut[phase]} == {"quiesce"}
    assert shut["stop"]
    assert not desk.layout.probation.exists()


@pytest.mark.parametrize(
    "words", [("kb", "list"), ("keys", "list"), ("webhooks", "list"), ("learn", "rollback")]
)
def test_commands_wait_for_the_end_of_an_upgrade(
    words: tuple[str, ...], sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = staged(tmp_path / "root")
    monkeypatch.setattr(door, "ROOT", layout.root)
    monkeypatch.setenv("APPLIANCE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("APPLIANCE_DATABASE_URL", sqlite_url)
    layout.probation.touch()
    done = CliRunner().invoke(cli, words)
    assert isinstance(done.exception, Conflict)
    assert "upgrade is under way" in done.exception.detail
    if words[0] == "keys":
        layout.probation.unlink()
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, done.output


@pytest.mark.anyio
async def test_a_door_that_stays_shut_is_told(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.door = False
    done = desk.upgrade()
    assert done.outcome == "done"
    assert "do not get in at port 8080" in done.reason
    assert done.reason in desk.said
    assert done.reason in desk.layout.log.read_text()
    _tell(done, False)
    assert capsys.readouterr().out == f"{NEW} is in charge. {done.reason}\n"


# --- what the next boot starts ------------------------------------------------------------------


@pytest.mark.anyio
async def test_what_is_finished_or_undone_at_boot_is_started_by_the_next_one(desk: Desk) -> None:
    desk.set(probe=fails)
    with pytest.raises(ApplianceError, match="made up"):
        desk.upgrade()
    # A trial is not for good.
    assert "enable" not in desk.orders.given
    desk.orders.given.clear()
    desk.undo(start=False)
    assert desk.orders.given == ["units", "enable"]
    desk.orders.given.clear()
    desk.set(probe=lambda *_, **__: None)
    done = desk.upgrade()
    assert desk.orders.given == ["stop", "units", "start", "enable", "start"]
    desk.orders.given.clear()
    desk.work.finish(done, start=False)
    assert desk.orders.given == ["enable"]


@pytest.mark.anyio
async def test_what_did_not_run_is_not_enabled_by_an_undo(desk: Desk) -> None:
    desk.orders.running = False
    desk.set(probe=fails)
    with pytest.raises(ApplianceError, match="made up"):
        desk.upgrade()
    desk.undo()
    assert "enable" not in desk.orders.given
    assert desk.orders.given[-1] == "units"

"""From one release to the next and back, on a populated desk: whatever fails and whoever is
killed, one of the two serves, whole."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.operations.release.data import hash_of
from appliance.operations.release.journal import PHASES
from appliance.operations.release.serving import call
from appliance.settings import Settings
from appliance.storage import migrate, whole
from tests.appliance_process import until
from tests.install.installation import REVISION, Installation

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(900)]

OLD, NEW = "1.0.0", "2.0.0"
QUESTION = "How do I reset my password?"


class Populated(Installation):
    """An installation whose old release has talked to customers."""

    def __init__(self, url: str = "", *, real: bool = False) -> None:
        super().__init__(real=real, settings={"database_url": url} if url else {})
        self.url = url or f"sqlite:///{self.data_dir / 'appliance.db'}"

    def populate(self) -> None:
        """Install, be asked something, and be thanked for the answer."""
        self.install(OLD)
        answer = self.ask(QUESTION)
        assert answer["metadata"]["outcome"] == "answered"
        self.post("feedback", {"message_id": answer["message_id"], "rating": "up"})

    @property
    def content(self) -> str:
        """Everything that somebody wrote, as one figure."""
        return whole.digest(self.url)

    def whole_release(self) -> str:
        """The version that serves, after a look whether it is one release through and through."""
        self.wait_serving()
        found = self.status()
        version: str = found["version"]
        assert found["serving"] == found["units"] == version, found
        assert self.serving() == version
        assert found["schema"] == (REVISION if version == NEW else migrate.head())
        assert not self.layout.probation.exists()
        return version

    def settled(self) -> dict[str, Any]:
        """The journal, once nothing is under way any more."""
        until(lambda: self.journal().get("outcome") in ("done", "undone"), "an end of the upgrade")
        return self.journal()


@pytest.fixture(scope="module")
def desk() -> Iterator[Populated]:
    """One for the tests of this module, which all leave the old release in charge."""
    made = Populated()
    try:
        made.populate()
        made.add(NEW, schema=True)
        yield made
    finally:
        made.clean()


@pytest.fixture
def make() -> Iterator[Callable[..., Populated]]:
    """Make some of one's own."""
    made: list[Populated] = []

    def making(*arguments: Any, **options: Any) -> Populated:
        made.append(Populated(*arguments, **options))
        made[-1].populate()
        return made[-1]

    yield making
    for one in made:
        one.clean()


def kill(desk: Populated, upgrade: subprocess.Popen[str], *, guardian: bool) -> None:
    """kill -9 the upgrade, and before that its guardian where that shall not help either."""
    if guardian:
        for pid in desk.processes("release guard"):
            os.kill(pid, signal.SIGKILL)
    upgrade.kill()
    upgrade.communicate()


def _look_at_the_trial(desk: Populated) -> None:
    """The new release runs, and no customer reaches it."""
    settings = Settings(data_dir=desk.data_dir, runtime_dir=None)
    answer = call(settings, "GET", "/health")
    assert answer is not None
    assert answer.body["version"] == NEW
    assert desk.serving() is None


def killed_at(desk: Populated, phase: str, *, guardian: bool) -> None:
    """Upgrade, kill it at a phase, and look at what is left."""
    before, journal = desk.content, desk.journal().get("id")
    upgrade = desk.begin(NEW, "release", "upgrade", NEW, hold=phase)
    if phase == "probe":
        _look_at_the_trial(desk)
    kill(desk, upgrade, guardian=guardian)
    if guardian:
        assert desk.journal()["outcome"] is None
        recovered = desk.cli_json(NEW, "release", "recover")["recovered"]
        assert recovered["after"] == NEW
        # Nothing is left for a second one.
        assert desk.cli_json(NEW, "release", "recover")["recovered"] is None
    found = desk.settled()
    assert found["id"] != journal
    if phase == "commit":
        assert found["outcome"] == "done"
        assert desk.whole_release() == NEW
    else:
        assert found["outcome"] == "undone"
        assert "killed" in found["reason"]
        assert phase in found["reason"]
        assert desk.whole_release() == OLD
        assert desk.content == before


@pytest.mark.parametrize(
    ("phase", "guardian"),
    [
        ("switch", False),
        ("probe", True),
        *(
            pytest.param(phase, guardian, marks=pytest.mark.full)
            for phase in PHASES[1:-1]
            for guardian in (False, True)
            if (phase, guardian) not in (("switch", False), ("probe", True))
        ),
    ],
)
def test_killed_before_the_commit(desk: Populated, phase: str, guardian: bool) -> None:
    killed_at(desk, phase, guardian=guardian)


def test_there_and_back_with_the_same_bytes(desk: Populated) -> None:
    asked = desk.rows("SELECT count(*) FROM conversations")[0][0]
    done = desk.cli_json(NEW, "release", "upgrade", NEW)
    assert done["outcome"] == "done"
    assert 0 < done["downtime_seconds"] < sum(done["seconds"].values()) + 1
    assert desk.whole_release() == NEW
    # The probe has asked its questions, and nobody ever hears of them.
    assert desk.rows("SELECT count(*) FROM conversations")[0][0] == asked
    kept = desk.journal()["facts"]["backup"]
    assert hash_of(Path(kept["folder"]) / kept["file"]) == kept["sha256"]

    rollback = desk.begin(NEW, "release", "rollback", hold="start")
    assert hash_of(desk.data_dir / "appliance.db") == kept["sha256"]
    desk.mark.unlink()
    assert rollback.wait() == 0, rollback.stderr and rollback.stderr.read()
    rollback.communicate()
    assert desk.whole_release() == OLD


def test_a_release_that_fails_its_probe_is_undone(desk: Populated) -> None:
    before = desk.content
    desk.add("3.0.0", fault="probe")
    done = desk.cli("3.0.0", "release", "upgrade", "3.0.0")
    assert done.returncode == 1
    assert "undone" in done.stderr
    assert "question of article" in done.stderr
    assert desk.whole_release() == OLD
    assert desk.content == before
    assert "undone" in desk.layout.log.read_text()


def test_killed_when_customers_are_in_again_it_keeps_what_they_wrote(desk: Populated) -> None:
    desk.add("3.4.0", fault="probe")
    upgrade = desk.begin("3.4.0", "release", "upgrade", "3.4.0", hold="undone")
    desk.wait_serving()
    before = desk.content
    desk.ask(QUESTION)
    written = desk.content
    assert written != before
    kill(desk, upgrade, guardian=True)
    assert desk.cli_json("3.4.0", "release", "recover")["recovered"]["outcome"] == "undone"
    assert desk.whole_release() == OLD
    assert desk.content == written


@pytest.mark.parametrize(
    ("version", "fault", "said"),
    [
        ("3.1.0", "migration", "no_such_table"),
        pytest.param("3.2.0", "lost", "rows", marks=pytest.mark.full),
        pytest.param("3.3.0", "start", "ended before", marks=pytest.mark.full),
    ],
)
def test_a_bad_release_is_undone(desk: Populated, version: str, fault: str, said: str) -> None:
    before = desk.content
    desk.add(version, fault=fault)
    done = desk.cli(version, "release", "upgrade", version)
    assert done.returncode == 1
    assert said in done.stderr + done.stdout
    assert desk.whole_release() == OLD
    assert desk.content == before


@pytest.mark.full
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("guardian", [False, True])
def test_killed_at_the_commit_it_is_finished(
    make: Callable[..., Populated], request: pytest.FixtureRequest, kind: str, guardian: bool
) -> None:
    desk = make("" if kind == "sqlite" else request.getfixturevalue("empty_postgresql_url"))
    desk.add(NEW, schema=True)
    if kind == "postgresql":
        killed_at(desk, "migrate", guardian=guardian)
        killed_at(desk, "start", guardian=guardian)
    killed_at(desk, "commit", guardian=guardian)
    desk.ask(QUESTION)
    refused = desk.cli(NEW, "release", "rollback")
    assert refused.returncode == 1
    assert "--discard-new" in refused.stderr
    assert desk.whole_release() == NEW
    assert desk.cli_json(NEW, "release", "rollback", "--discard-new")["outcome"] == "done"
    assert desk.whole_release() == OLD


@pytest.mark.full
def test_with_the_real_models(make: Callable[..., Populated]) -> None:
    desk = make(real=True)
    desk.add(NEW, schema=True)
    done = desk.cli_json(NEW, "release", "upgrade", NEW)
    assert done["outcome"] == "done"
    assert desk.whole_release() == NEW
    assert desk.ask(QUESTION)["metadata"]["outcome"] == "answered"

"""Settling an exchange that was interrupted, whatever happened to the folders since."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from appliance.bootstrap import Appliance
from appliance.errors import ApplianceError, StorageUnavailable
from appliance.knowledge.embedding import HashedEmbedder
from appliance.llm.scripted import ScriptedModel
from appliance.operations.backup import exchange, restoring
from appliance.operations.backup.contents import ASIDE, JOURNAL_FILE
from appliance.operations.backup.exchange import Exchange, Move
from appliance.settings import Settings, load_settings
from appliance.worker import serve

pytestmark = pytest.mark.anyio

OLD, NEW, STRANGE = b"old", b"new", b"of nobody"
NAMES = ("appliance.db", "secrets/webhooks")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A desk of two files that an exchange is to replace."""
    for name in NAMES:
        _write(tmp_path / name, OLD)
        _write(tmp_path / ".restore-x" / Path(name).name, NEW)
    return load_settings(data_dir=tmp_path)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def interrupted(settings: Settings, done: int, database: str | None = None) -> None:
    """Both files leave, the secret comes, the database last; so many of these were done."""
    data = settings.data_dir
    leave = [Move(str(data / n), str(data / f"{ASIDE}x" / n)) for n in NAMES]
    come = [Move(str(data / ".restore-x" / Path(n).name), str(data / n)) for n in NAMES[::-1]]
    moves = [*leave, *come]
    for move in moves[:done]:
        Path(move.target).parent.mkdir(parents=True, exist_ok=True)
        Path(move.source).rename(move.target)
    (data / JOURNAL_FILE).write_bytes(msgspec.json.encode(Exchange(moves, database)))


def desk(settings: Settings) -> list[bytes]:
    return [(settings.data_dir / name).read_bytes() for name in NAMES]


async def test_nothing_starts_and_makes_secrets_anew(settings: Settings) -> None:
    interrupted(settings, 2)
    with pytest.raises(StorageUnavailable) as refused:
        Appliance(settings, model=ScriptedModel(), embedder=HashedEmbedder())
    assert "db upgrade" in refused.value.hint
    with pytest.raises(StorageUnavailable, match="interrupted"):
        await serve(settings)
    assert not (settings.data_dir / "secrets" / "visitors").exists()


@pytest.mark.parametrize("done", [2, 3])
def test_what_somebody_wrote_meanwhile_is_not_the_old_desk(settings: Settings, done: int) -> None:
    interrupted(settings, done)
    if done == 2:
        _write(settings.data_dir / "secrets" / "webhooks", STRANGE)
    _write(settings.data_dir / "appliance.db", STRANGE)
    _write(settings.data_dir / "appliance.db-wal", STRANGE)
    assert exchange.settle(settings)
    assert desk(settings) == [OLD, OLD]
    assert not (settings.data_dir / "appliance.db-wal").exists()


def test_a_database_server_that_is_away_does_not_undo_twice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(settings, 3, "staged")

    def away(url: object) -> None:
        raise StorageUnavailable("The server is away.")

    with monkeypatch.context() as gone:
        gone.setattr(exchange.dumps, "exists", lambda url: True)
        gone.setattr(exchange.dumps, "drop", away)
        with pytest.raises(ApplianceError):
            exchange.settle(settings)
    # A failed restore takes its folder along.
    shutil.rmtree(settings.data_dir / ".restore-x")
    monkeypatch.setattr(exchange.dumps, "exists", lambda url: True)
    monkeypatch.setattr(exchange.dumps, "drop", lambda url: None)
    assert exchange.settle(settings)
    assert desk(settings) == [OLD, OLD]
    assert not exchange.is_interrupted(settings)


def test_an_undoing_that_failed_half_way_goes_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(settings, 3)
    move, left = exchange._move, 2

    def failing(one: Move) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError("The disk fails.")
        move(one)

    with monkeypatch.context() as broken:
        broken.setattr(exchange, "_move", failing)
        with pytest.raises(OSError, match="fails"):
            exchange.settle(settings)
    shutil.rmtree(settings.data_dir / ".restore-x")
    assert exchange.settle(settings)
    assert desk(settings) == [OLD, OLD]


def test_a_secret_is_on_the_disk_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(restoring.os, "fsync", synced.append)
    written = restoring._write(tmp_path / "secret", NEW)
    assert written.read_bytes() == NEW
    assert written.stat().st_mode & 0o777 == 0o600
    assert len(synced) == 1
    with pytest.raises(FileExistsError):
        restoring._write(written, OLD)

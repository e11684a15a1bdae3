"""A restore that is killed at any rename leaves the old desk or the new one, and never a mixture
that something could start on."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.operations.backup import exchange
from appliance.operations.backup.making import make
from appliance.operations.backup.restoring import restore, standing_still
from appliance.settings import Settings
from appliance.storage import dumps, migrate
from tests.integration.backup_desk import found, serving, settings_of

pytestmark = pytest.mark.anyio

PASSPHRASE = "correct horse battery"
EVERY_MOVE = 1_000
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])


def _die(settings: Settings, backup: Path, steps: int) -> None:
    """In a process of its own: restore, and be gone after so many steps or before the journal is
    closed."""
    left = steps

    def counted(act: Callable[..., None]) -> Callable[..., None]:
        def counting(*arguments: Any) -> None:
            nonlocal left
            if left == 0:
                os._exit(9)
            left -= 1
            act(*arguments)

        return counting

    exchange._move = counted(exchange._move)
    dumps.exchange = counted(dumps.exchange)
    if steps == EVERY_MOVE:
        exchange.finish = lambda settings: os._exit(9)
    asyncio.run(restore(settings, backup, passphrase=PASSPHRASE, replace=True))
    os._exit(0)


def killed_restore(settings: Settings, backup: Path, steps: int) -> int:
    """How a restore ended that was to die after so many steps; 0 where there were no more."""
    process = _FORKS.Process(target=_die, args=(settings, backup, steps))
    process.start()
    process.join()
    status = process.exitcode
    process.close()
    assert status is not None
    return status


def heads(settings: Settings) -> bytes:
    return (settings.data_dir / "heads" / "learned-0001.npz").read_bytes()


@pytest.fixture(params=["sqlite", "postgresql"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Settings, Settings]:
    """A desk that is backed up, and another one that is to be replaced."""
    urls = ["sqlite", "sqlite"]
    if request.param == "postgresql":
        urls = [request.getfixturevalue(f"{kind}postgresql_url") for kind in ("", "empty_")]
    return settings_of(tmp_path / "here", urls[0]), settings_of(tmp_path / "there", urls[1])


@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.full)])
async def test_killed_at_any_move_it_is_the_old_desk_or_the_new_one(
    places: tuple[Settings, Settings], stride: int
) -> None:
    here, there = places
    async with serving(here) as desk:
        await desk.ask("How do I reset my password?", user="new")
        backup = (await make(here, passphrase=PASSPHRASE)).path
    async with serving(there) as desk:
        await desk.ask("How do I reset my password?", user="old")
    (there.data_dir / "heads" / "learned-0001.npz").write_bytes(b"of the old desk")
    secret = (there.data_dir / "secrets" / "webhooks").read_bytes()
    before = found(there)
    moves = 0
    while (status := killed_restore(there, backup, moves)) != 0:
        assert status == 9
        if exchange.is_interrupted(there) and not there.database_url and moves > 0:
            # In between there is no database to start on.
            assert migrate.current(there.resolved_database_url) is None
        with standing_still(there):
            pass
        assert not exchange.is_interrupted(there)
        assert found(there) == before
        assert heads(there) == b"of the old desk"
        assert (there.data_dir / "secrets" / "webhooks").read_bytes() == secret
        assert not list(there.data_dir.glob(".restore-*"))
        moves += stride
    assert moves > 5
    assert heads(there) == b"numbers"
    assert found(there).tables["users"] == found(here).tables["users"]


async def test_killed_behind_the_last_move_it_is_the_new_desk(
    places: tuple[Settings, Settings],
) -> None:
    here, there = places
    async with serving(here) as desk:
        await desk.ask("How do I reset my password?", user="new")
        backup = (await make(here, passphrase=PASSPHRASE)).path
    async with serving(there):
        (there.data_dir / "heads" / "learned-0001.npz").write_bytes(b"of the old desk")
    assert killed_restore(there, backup, EVERY_MOVE) == 9
    assert exchange.is_interrupted(there)
    with standing_still(there):
        pass
    assert heads(there) == b"numbers"
    assert found(there).tables["users"] == found(here).tables["users"]
    # And the next restore goes through.
    await restore(there, backup, replace=True)

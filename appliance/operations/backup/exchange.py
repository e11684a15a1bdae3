"""Exchanging a desk for another one, file by file, so that after a crash it is the old one or the
new one.

The old database goes first and the new one comes last: in between there is none, and nothing
starts on a mixture. A journal tells what was under way; whoever finds it finishes or undoes it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
from sqlalchemy import URL

from appliance.errors import ApplianceError
from appliance.llm.weights import write_json
from appliance.operations.backup.contents import JOURNAL_FILE
from appliance.operations.backup.folder import sync
from appliance.settings import Settings
from appliance.storage import dumps
from appliance.storage.engines import parse_url, sqlite_file

STAGING = ".restore-"
"""How the folders begin in which a restore prepares."""


class Move(msgspec.Struct, frozen=True):
    """A file or folder and where it goes; both on one disk."""

    source: str
    target: str


class Exchange(msgspec.Struct, frozen=True):
    """The moves in their order. ``database`` is the name under which a server holds the new
    database until all moves are done and it is renamed."""

    moves: list[Move]
    database: str | None = None


def begin(settings: Settings, moves: Sequence[Move], database: str | None = None) -> None:
    """Write the journal, then move. What is on a server is renamed by the caller, then
    ``finish``.

    :raises OSError: the disk fails; ``settle`` puts everything back.
    """
    write_json(_journal(settings), Exchange(list(moves), database))
    sync(settings.data_dir)
    for move in moves:
        _move(move)


def finish(settings: Settings) -> None:
    """All is done."""
    _journal(settings).unlink(missing_ok=True)
    sync(settings.data_dir)


def settle(settings: Settings) -> bool:
    """Finish or undo what a crash interrupted, and remove what it left; True when there was
    something to undo. Only where the appliance does not run and nobody else restores.

    :raises ApplianceError: the journal cannot be read, or the disk fails.
    """
    journal = _journal(settings)
    try:
        found = msgspec.json.decode(journal.read_bytes(), type=Exchange)
    except FileNotFoundError:
        _tidy(settings)
        return False
    except (OSError, msgspec.MsgspecError) as error:
        raise ApplianceError(f"{journal} cannot be read: {error}.") from error
    undone = not _is_done(settings, found)
    if undone:
        for move in reversed(found.moves):
            if Path(move.target).exists() and not Path(move.source).exists():
                _move(Move(move.target, move.source))
        if found.database is not None:
            dumps.drop(_staged(settings, found.database))
    finish(settings)
    _tidy(settings)
    return undone


def is_interrupted(settings: Settings) -> bool:
    """Whether a restore was interrupted and nobody settled it."""
    return _journal(settings).exists()


def _is_done(settings: Settings, exchange: Exchange) -> bool:
    """Whether the last step happened. Earlier ones do not tell: where something left, something
    else came."""
    if exchange.moves:
        last = exchange.moves[-1]
        if Path(last.source).exists() or not Path(last.target).exists():
            return False
    return exchange.database is None or not dumps.exists(_staged(settings, exchange.database))


def _staged(settings: Settings, database: str) -> URL:
    return parse_url(settings.resolved_database_url).set(database=database)


def _move(move: Move) -> None:
    source, target = Path(move.source), Path(move.target)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    source.rename(target)
    for folder in {source.parent, target.parent}:
        with contextlib.suppress(FileNotFoundError):
            sync(folder)


def _tidy(settings: Settings) -> None:
    database = sqlite_file(parse_url(settings.resolved_database_url))
    for folder in {settings.data_dir, settings.data_dir if database is None else database.parent}:
        for left in folder.glob(f"{STAGING}*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _journal(settings: Settings) -> Path:
    return settings.data_dir / JOURNAL_FILE

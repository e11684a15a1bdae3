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
from typing import Final

import msgspec
from sqlalchemy import URL

from appliance.errors import ApplianceError, StorageUnavailable
from appliance.llm.weights import write_json
from appliance.operations.backup.contents import JOURNAL_FILE
from appliance.operations.backup.folder import sync
from appliance.settings import Settings
from appliance.storage import dumps
from appliance.storage.engines import parse_url, sqlite_file

STAGING = ".restore-"
"""How the folders begin in which a restore prepares."""
COMPANIONS: Final = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database."""


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
        _undo(found.moves)
        if found.database is not None:
            # Should the server be away now, nothing is moved a second time.
            write_json(journal, Exchange([], found.database))
            dumps.drop(_staged(settings, found.database))
    finish(settings)
    _tidy(settings)
    return undone


def is_interrupted(settings: Settings) -> bool:
    """Whether a restore was interrupted and nobody settled it."""
    return _journal(settings).exists()


def require_settled(settings: Settings) -> None:
    """For whatever would make secrets or files anew where a restore has moved the old ones away.

    :raises StorageUnavailable: a restore is under way, or was interrupted.
    """
    if is_interrupted(settings):
        raise StorageUnavailable(
            "A restore was interrupted.",
            hint="Stop the appliance, then run 'appliance db upgrade'.",
        )


def _undo(moves: Sequence[Move]) -> None:
    """Put back what left, and away what came, the last first; again after a failure, too."""
    kept = {move.source: Path(move.target) for move in moves if not _is_coming(move)}
    for left, aside in kept.items():
        if aside.exists() and Path(left).exists():
            # Somebody wrote a new file meanwhile. A database's log must not meet the old database.
            for beside in (f"{left}{end}" for end in COMPANIONS):
                if beside not in kept or kept[beside].exists():
                    Path(beside).unlink(missing_ok=True)
    for move in reversed(moves):
        source, target = Path(move.source), Path(move.target)
        if not target.exists():
            continue
        if not _is_coming(move):
            _move(Move(move.target, move.source))
        elif not source.exists() and (move.target not in kept or kept[move.target].exists()):
            # Else it is the old one there, which is back already.
            _move(Move(move.target, move.source))


def _is_coming(move: Move) -> bool:
    source = Path(move.source)
    return source.name.startswith(STAGING) or source.parent.name.startswith(STAGING)


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

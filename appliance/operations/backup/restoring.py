"""Putting a backup in charge: prepared whole beside what is there, then exchanged for it.

Everything that can be refused is refused before anything changes. What is replaced is kept aside
until somebody deletes it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from appliance.errors import (
    ApplianceError,
    BackupRefused,
    Conflict,
    NotFound,
    StorageUnavailable,
)
from appliance.operations.backup import advice, candidates, contents, exchange, sealing
from appliance.operations.backup.archive import Archive
from appliance.operations.backup.exchange import COMPANIONS, STAGING, Move
from appliance.operations.backup.manifest import CONFIG_FILE, DATABASE, SECRETS, STATE, Manifest
from appliance.operations.backup.rehearsal import require_room, staged, verify_answers
from appliance.operations.locks import hold_lock
from appliance.services.audit import AuditLog
from appliance.services.withdrawn import Withdrawn, withdraw_again
from appliance.settings import Settings, ensure_folders
from appliance.storage import Database, dumps, migrate
from appliance.storage.engines import parse_url, sqlite_file

PROCESSES: Final = ("up.lock", "api.lock", "engine.lock", "worker.lock")
"""Held by the appliance's processes for as long as they live."""
MARK_LOOK: Final = 0.1
"""Seconds between two looks for an unused name."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A desk that was restored. ``aside`` is where what it replaced lies, ``withdrawn`` what was
    withdrawn again, None where no present desk could tell; ``findings`` are what is wrong with the
    answer records; ``advice`` says what does not work yet, with what to do."""

    manifest: Manifest
    revision: str
    aside: str | None
    handed: str | None
    withdrawn: Withdrawn | None
    findings: list[str]
    advice: list[advice.Advice]
    seconds: float


async def restore(
    settings: Settings,
    path: Path,
    *,
    passphrase: str | None = None,
    replace: bool = False,
    by: str = "operator",
) -> Restored:
    """Restore a backup into the data folder and the database of the settings.

    :param passphrase: opens the secrets, where the backup has them; without it they stay closed.
    :param replace: whether a desk that is there may be replaced; it is kept aside.
    :raises NotFound: there is no such file.
    :raises BackupRefused: the backup is damaged, of a newer release, or of another kind of
        database.
    :raises Conflict: the appliance runs, or there is a desk already.
    :raises StorageFull: there is no room.
    """
    if not path.is_file():
        raise NotFound(f"There is no file {path}.", hint="See 'appliance db backups'.")
    return await asyncio.to_thread(_restore, settings, path, passphrase, replace, by)


@contextmanager
def standing_still(settings: Settings) -> Iterator[None]:
    """While no process of the appliance runs, and what a crash interrupted is settled.

    :raises Conflict: one runs, or a backup is being made.
    """
    ensure_folders(settings)
    with ExitStack() as held:
        for name in (*PROCESSES, contents.LOCK_FILE):
            if not held.enter_context(hold_lock(settings.data_dir / name)):
                busy = name == contents.LOCK_FILE
                raise Conflict(
                    "A backup is being made or restored right now."
                    if busy
                    else f"The appliance of {settings.data_dir} is running.",
                    hint="Try again when it is done." if busy else "Stop it first.",
                )
        exchange.settle(settings)
        yield


def _restore(
    settings: Settings, path: Path, passphrase: str | None, replace: bool, by: str
) -> Restored:
    started = time.monotonic()
    with Archive.open(path) as archive, standing_still(settings), _told(settings):
        manifest = archive.manifest
        candidates.require_known(manifest)
        _require_kind(settings, manifest)
        occupied = asyncio.run(_holds_desk(settings))
        if occupied and not replace:
            raise Conflict(
                f"There is a desk in {settings.data_dir} already: {occupied}.",
                hint="With --replace the backup takes its place, and it is kept aside.",
            )
        require_room(settings.data_dir, manifest)
        with tempfile.TemporaryDirectory(prefix=STAGING, dir=settings.data_dir) as made:
            folder = Path(made)
            members = archive.unpack(folder)
            secrets = _opened(members, manifest, passphrase)
            with staged(settings, manifest, _on_its_disk(settings, manifest, members)) as candidate:
                if differences := candidate.differences(manifest):
                    raise BackupRefused(f"The backup is not sound: {differences[0]}")
                migrate.upgrade(candidate.url)
                _, findings = asyncio.run(verify_answers(candidate.url, manifest))
                withdrawn = asyncio.run(_brought_up(settings, candidate.url, manifest, by))
                mark = _unused_mark(settings)
                handed = _hand_over(settings, mark, members, secrets)
                told = advice.give(settings, manifest, members, secrets, withdrawn)
                aside = _take_over(settings, mark, manifest, members, secrets, candidate)
    return Restored(
        manifest,
        migrate.head(),
        aside,
        handed,
        withdrawn,
        findings,
        told,
        time.monotonic() - started,
    )


def _unused_mark(settings: Settings) -> str:
    """The time, in UTC and a second that no earlier restore put its old desk under."""
    url = parse_url(settings.resolved_database_url)
    file = sqlite_file(url)
    while True:
        mark = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        folders = [settings.data_dir / contents.HANDED / mark]
        folders += [
            place / f"{contents.ASIDE}{mark}"
            for place in (settings.data_dir, *(() if file is None else (file.parent,)))
        ]
        taken = any(folder.exists() for folder in folders)
        if not taken and (file is not None or not dumps.exists(_aside_on_server(url, mark))):
            return mark
        time.sleep(MARK_LOOK)


def _aside_on_server(url: URL, mark: str) -> URL:
    return url.set(database=candidates.beside(url, f"before_{mark.lower()}"))


def _require_kind(settings: Settings, manifest: Manifest) -> None:
    file = sqlite_file(parse_url(settings.resolved_database_url))
    here = "postgresql" if file is None else "sqlite"
    if manifest.database != here:
        raise BackupRefused(
            f"The backup is of a {manifest.database} database, and database_url names {here}.",
            hint="Set database_url to the kind of the backup.",
        )


async def _holds_desk(settings: Settings) -> str:
    """What the present database holds that would be missed; empty on a fresh installation, whose
    own first key and starter articles go aside without a question."""
    if not _is_there(settings):
        return ""
    database = Database(settings.resolved_database_url)
    try:
        await database.check()
        found = await database.read(
            lambda records: {
                "customers": bool(records.users.list(1)),
                "accounts": bool(records.accounts.list()),
                "webhooks": bool(records.webhooks.list()),
            }
        )
    except StorageUnavailable as error:
        return f"a database that cannot be read ({error.detail.rstrip('.')})"
    finally:
        await database.aclose()
    return ", ".join(f"it has {name}" for name, there in found.items() if there)


def _is_there(settings: Settings) -> bool:
    url = parse_url(settings.resolved_database_url)
    file = sqlite_file(url)
    return dumps.has_tables(url) if file is None else file.exists()


def _opened(
    members: dict[str, Path], manifest: Manifest, passphrase: str | None
) -> dict[str, bytes]:
    if passphrase is None:
        return {}
    if SECRETS not in members:
        raise BackupRefused(
            "The backup holds no secrets to open.", hint="Restore it without --passphrase-file."
        )
    return sealing.unseal(members[SECRETS].read_bytes(), passphrase, manifest.id)


def _on_its_disk(settings: Settings, manifest: Manifest, members: dict[str, Path]) -> Path:
    """The database's member where a rename can put it in charge."""
    source = members[DATABASE[manifest.database]]
    file = sqlite_file(parse_url(settings.resolved_database_url))
    if file is None or file.parent.stat().st_dev == source.stat().st_dev:
        return source
    return Path(shutil.move(source, file.with_name(f"{STAGING}{manifest.id[:8]}.sqlite")))


async def _brought_up(
    settings: Settings, url: str, manifest: Manifest, by: str
) -> Withdrawn | None:
    """Bring the restored desk up to what holds now, and write down that it was restored."""
    restored = Database(url)
    try:
        withdrawn = None
        if _is_there(settings):
            present = Database(settings.resolved_database_url)
            try:
                withdrawn = await withdraw_again(present, restored)
            finally:
                await present.aclose()
        # Whoever was signed in then may have lost the right since: everybody signs in again.
        await restored.write(lambda records: records.sessions.end_all())
        details = {
            "id": manifest.id,
            "created": manifest.created.isoformat(),
            "version": manifest.version,
            "forgotten_again": withdrawn.persons if withdrawn else None,
        }
        await AuditLog(restored).note(by, "db.restore", manifest.id, details)
    finally:
        await restored.aclose()
    return withdrawn


def _hand_over(
    settings: Settings, mark: str, members: dict[str, Path], secrets: dict[str, bytes]
) -> str | None:
    """Lay what belongs outside of the data folder where an administrator finds it: the place it
    had is of another machine, and of another user."""
    texts = {name: content for name, content in secrets.items() if contents.fate(name) != "secret"}
    if CONFIG_FILE in members:
        texts.setdefault(CONFIG_FILE, members[CONFIG_FILE].read_bytes())
    if not texts:
        return None
    folder = settings.data_dir / contents.HANDED / mark
    folder.mkdir(mode=0o700, parents=True)
    for name, content in texts.items():
        _write(folder / Path(name).name, content)
    return str(folder)


def _take_over(
    settings: Settings,
    mark: str,
    manifest: Manifest,
    members: dict[str, Path],
    secrets: dict[str, bytes],
    candidate: candidates.SqliteCandidate | candidates.PostgresCandidate,
) -> str | None:
    """The exchange itself; where the old desk lies now."""
    data, aside = settings.data_dir, settings.data_dir / f"{contents.ASIDE}{mark}"
    new = {
        name.removeprefix(STATE): path for name, path in members.items() if name.startswith(STATE)
    }
    for number, (name, content) in enumerate(secrets.items()):
        if contents.fate(name) == "secret":
            new[name] = _write(next(iter(members.values())).with_name(f"secret-{number}"), content)
    old = [name for name, _ in contents.files(data, "saved")]
    old += [name for name, _ in contents.files(data, "secret") if name in new]
    leave = [Move(str(data / name), str(aside / name)) for name in old]
    come = [Move(str(path), str(data / name)) for name, path in new.items()]
    if isinstance(candidate, candidates.PostgresCandidate):
        return _take_over_server(settings, mark, [*leave, *come], candidate)
    file = sqlite_file(parse_url(settings.resolved_database_url))
    assert file is not None
    kept = file.with_name(f"{contents.ASIDE}{mark}")
    first = [
        Move(str(path), str(kept / path.name))
        for path in (file, *(file.with_name(file.name + end) for end in COMPANIONS))
        if path.exists()
    ]
    last = [
        Move(f"{candidate.file}{end}", f"{file}{end}")
        for end in (*COMPANIONS, "")
        if Path(f"{candidate.file}{end}").exists()
    ]
    with _undone_on_failure(settings):
        exchange.begin(settings, [*first, *leave, *come, *last])
        exchange.finish(settings)
    return str(kept) if first else str(aside) if leave else None


def _take_over_server(
    settings: Settings, mark: str, moves: list[Move], candidate: candidates.PostgresCandidate
) -> str:
    present = parse_url(settings.resolved_database_url)
    aside = _aside_on_server(present, mark)
    worthless = not dumps.has_tables(present)
    with _undone_on_failure(settings):
        exchange.begin(settings, moves, candidate.parsed.database)
        dumps.exchange(present, candidate.parsed, aside)
        exchange.finish(settings)
    if worthless:
        dumps.drop(aside)
        return str(settings.data_dir / f"{contents.ASIDE}{mark}")
    return f"database {aside.database}"


@contextmanager
def _undone_on_failure(settings: Settings) -> Iterator[None]:
    try:
        yield
    except BaseException:
        exchange.settle(settings)
        raise


@contextmanager
def _told(settings: Settings) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ApplianceError(
            f"{settings.data_dir} cannot be written: {error.strerror}; the desk is as it was.",
            hint="Check the disk, then restore again.",
        ) from error


def _write(path: Path, content: bytes) -> Path:
    """A new file for this user only, down to the disk: a secret that is renamed into its place
    must not be empty after a power cut."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return path

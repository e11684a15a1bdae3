"""``appliance db``: the database, its backups, and putting one in charge again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.output import json_option, note, prepare, print_json, run, table

if TYPE_CHECKING:
    from appliance.operations.backup.making import Backup
    from appliance.operations.backup.rehearsal import Rehearsal
    from appliance.operations.backup.restoring import Restored
    from appliance.settings import Settings

PLACE = click.Path(path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
MEGA = 1e6

passphrase_option = click.option(
    "--passphrase-file",
    metavar="FILE",
    help="Its first line opens the backup's secrets; - for stdin.",
)


@click.group()
def db() -> None:
    """Create, upgrade, back up and restore the database."""


@db.command()
@json_option
def upgrade(as_json: bool) -> None:
    """Bring the database to the form this version needs; creates it where there is none."""
    settings = prepare("db")
    from appliance.operations.backup import exchange
    from appliance.operations.backup.restoring import standing_still
    from appliance.settings import ensure_folders
    from appliance.storage import migrate

    ensure_folders(settings)
    if exchange.is_interrupted(settings):
        # The desk that the restore was to replace is put back; a new database would hide it.
        with standing_still(settings):
            note("An interrupted restore was settled.")
    url = settings.resolved_database_url
    before = migrate.current(url)
    migrate.upgrade(url)
    after = migrate.current(url)
    if as_json:
        print_json({"before": before, "after": after, "changed": before != after})
    elif before == after:
        click.echo(f"The database is up to date ({after}).")
    else:
        click.echo(f"The database was brought from {before or 'nothing'} to {after}.")


@db.command()
@click.option("--out", type=PLACE, help="A folder, or a new file; by default the setting's folder.")
@click.option("--with-secrets", is_flag=True, help="Take secrets along, encrypted.")
@click.option(
    "--passphrase-file", metavar="FILE", help="Its first line encrypts them; - for stdin."
)
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    help="Afterwards remove all but the newest N that were made by hand.",
)
@click.option(
    "--scheduled",
    is_flag=True,
    help="As the timer does: keep days and weeks as the settings say, and rehearse each week.",
)
@json_option
def backup(
    out: Path | None,
    with_secrets: bool,
    passphrase_file: str | None,
    keep: int | None,
    scheduled: bool,
    as_json: bool,
) -> None:
    """Back up the desk into one file, while it serves."""
    if with_secrets != (passphrase_file is not None):
        raise click.UsageError("--with-secrets and --passphrase-file go together.")
    if scheduled and keep is not None:
        raise click.UsageError("--scheduled keeps what the settings say: leave --keep out.")
    settings = prepare("db")
    from appliance.operations.backup.making import make
    from appliance.operations.backup.sealing import read_passphrase

    passphrase = read_passphrase(passphrase_file) if passphrase_file is not None else None
    made = run(make(settings, out, passphrase=passphrase, scheduled=scheduled))
    removed = _prune(settings, made, keep, scheduled=scheduled)
    rehearsal = _rehearse_if_due(settings, made) if scheduled else None
    if as_json:
        print_json(
            {
                "file": str(made.path),
                "bytes": made.size,
                "seconds": round(made.seconds, 3),
                "manifest": made.manifest,
                "removed": [str(path) for path in removed],
                "rehearsal": None if rehearsal is None else _rehearsed(rehearsal),
            }
        )
    else:
        click.echo(f"{made.path}: {made.size / MEGA:.1f} MB in {made.seconds:.1f} s.")
        for path in removed:
            click.echo(f"removed {path}")
        for name in made.manifest.left_out:
            note(f"not in it, because nothing is known of it: {name}")
        if not made.manifest.sealed:
            note("Without secrets: see docs/backup.md for what a new server needs besides.")
        if rehearsal is not None:
            _tell(rehearsal)
    if rehearsal is not None and not rehearsal.sound:
        sys.exit(1)


@db.command()
@click.argument("file", type=FILE, required=False)
@passphrase_option
@json_option
def verify(file: Path | None, passphrase_file: str | None, as_json: bool) -> None:
    """Rehearse restoring FILE, or the newest backup; exit 1 where it is not sound."""
    settings = prepare("db")
    from appliance.operations.backup import standing
    from appliance.operations.backup.folder import latest
    from appliance.operations.backup.rehearsal import rehearse
    from appliance.operations.backup.sealing import read_passphrase

    passphrase = read_passphrase(passphrase_file) if passphrase_file is not None else None
    path = file or latest(settings, standing.read(settings))
    rehearsal = run(rehearse(settings, path, passphrase=passphrase))
    if as_json:
        print_json(_rehearsed(rehearsal))
    else:
        _tell(rehearsal)
    if not rehearsal.sound:
        sys.exit(1)


@db.command()
@click.argument("file", type=FILE)
@passphrase_option
@click.option("--replace", is_flag=True, help="Also where there is a desk; it is kept aside.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def restore(
    file: Path, passphrase_file: str | None, replace: bool, yes: bool, as_json: bool
) -> None:
    """Put the desk of a backup in charge. The appliance has to be stopped."""
    settings = prepare("db")
    from appliance.operations.backup.restoring import restore as restoring
    from appliance.operations.backup.sealing import read_passphrase

    passphrase = read_passphrase(passphrase_file) if passphrase_file is not None else None
    if replace and not yes:
        click.confirm(
            f"Replace the desk in {settings.data_dir} by {file.name}?", abort=True, err=True
        )
    done = run(restoring(settings, file.absolute(), passphrase=passphrase, replace=replace))
    if as_json:
        print_json(
            {
                "id": done.manifest.id,
                "created": done.manifest.created,
                "revision": done.revision,
                "tables": {name: each.rows for name, each in done.manifest.tables.items()},
                "aside": done.aside,
                "handed": done.handed,
                "withdrawn_again": done.withdrawn,
                "findings": done.findings,
                "advice": done.advice,
                "seconds": round(done.seconds, 3),
            }
        )
    else:
        _tell_restored(done)


@db.command()
@click.option("--dir", "folder", type=PLACE, help="Another folder than the setting's.")
@json_option
def backups(folder: Path | None, as_json: bool) -> None:
    """List backups, newest first, with when each was rehearsed."""
    settings = prepare("db")
    from appliance.operations.backup import standing
    from appliance.operations.backup.folder import default_folder, listed

    known = standing.read(settings)
    found, damaged = listed(folder or default_folder(settings), known)
    if as_json:
        print_json(
            {
                "backups": [
                    {
                        "file": str(each.path),
                        "bytes": each.size,
                        "id": each.manifest.id,
                        "created": each.manifest.created,
                        "version": each.manifest.version,
                        "scheduled": each.manifest.scheduled,
                        "secrets": each.manifest.sealed,
                        "rehearsed": each.rehearsed,
                    }
                    for each in found
                ],
                "damaged": [str(path) for path in damaged],
                "standing": known,
            }
        )
        return
    table(
        ("FILE", "CREATED", "MB", "MADE BY", "SECRETS", "REHEARSED"),
        [
            (
                each.path.name,
                f"{each.manifest.created:%Y-%m-%d %H:%M}",
                f"{each.size / MEGA:.1f}",
                "the clock" if each.manifest.scheduled else "hand",
                "yes" if each.manifest.sealed else "no",
                _when(each.rehearsed),
            )
            for each in found
        ],
    )
    for path in damaged:
        note(f"damaged: {path}")


def _prune(settings: Settings, made: Backup, keep: int | None, *, scheduled: bool) -> list[Path]:
    from appliance.operations.backup import standing
    from appliance.operations.backup.folder import prune

    folder, known = made.path.parent, standing.read(settings)
    if scheduled:
        return prune(
            settings,
            folder,
            known,
            scheduled=True,
            newest=settings.backup_days,
            weekly=settings.backup_weeks,
        )
    if keep is None:
        return []
    return prune(settings, folder, known, scheduled=False, newest=keep)


def _rehearse_if_due(settings: Settings, made: Backup) -> Rehearsal | None:
    from datetime import UTC, datetime

    from appliance.operations.backup import standing
    from appliance.operations.backup.rehearsal import REHEARSED_EVERY, rehearse

    since = standing.read(settings).sound_since()
    if since is not None and datetime.now(UTC) - since < REHEARSED_EVERY:
        return None
    return run(rehearse(settings, made.path))


def _rehearsed(rehearsal: Rehearsal) -> dict[str, Any]:
    manifest = rehearsal.manifest
    return {
        "file": str(rehearsal.path),
        "sound": rehearsal.sound,
        "findings": rehearsal.findings,
        "id": manifest and manifest.id,
        "created": manifest and manifest.created,
        "revision": rehearsal.revision,
        "tables": {name: each.rows for name, each in manifest.tables.items()} if manifest else {},
        "answer_records": rehearsal.records,
        "seconds": round(rehearsal.seconds, 3),
    }


def _tell(rehearsal: Rehearsal) -> None:
    if rehearsal.manifest is not None and rehearsal.sound:
        rows = sum(each.rows for each in rehearsal.manifest.tables.values())
        click.echo(
            f"{rehearsal.path.name} is sound: restored for a trial in {rehearsal.seconds:.1f} s, "
            f"{len(rehearsal.manifest.tables)} tables with {rows} rows as they were, "
            f"{rehearsal.records} answer records verified."
        )
        return
    click.echo(f"{rehearsal.path.name} is NOT sound:")
    for finding in rehearsal.findings:
        click.echo(f"  {finding}")
    note("hint: Make another backup now and verify it; keep this one until then.")


def _tell_restored(done: Restored) -> None:
    click.echo(
        f"Restored the desk of {done.manifest.created:%Y-%m-%d %H:%M} UTC in {done.seconds:.1f} s."
    )
    if done.aside is not None:
        click.echo(f"What was there before: {done.aside}")
    if done.withdrawn is not None:
        click.echo(
            f"Since then and again now: {done.withdrawn.persons} persons forgotten, "
            f"{done.withdrawn.keys} keys revoked, {done.withdrawn.accounts} accounts disabled, "
            f"{done.withdrawn.passwords} passwords replaced, "
            f"{done.withdrawn.webhooks} webhooks switched off."
        )
    for finding in done.findings:
        click.echo(f"wrong: {finding}")
    for each in done.advice:
        click.echo(f"- {each.what}")
        click.echo(f"  -> {each.todo}")


def _when(rehearsed: Any) -> str:
    if rehearsed is None:
        return "never"
    return f"{rehearsed.at:%Y-%m-%d %H:%M}{'' if rehearsed.sound else ' NOT SOUND'}"

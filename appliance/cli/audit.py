"""``appliance audit``: who did what."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.output import json_option, note, print_json, table, with_database

if TYPE_CHECKING:
    from appliance.storage.database import Database


@click.group()
def audit() -> None:
    """Read and export the audit log, which nobody can change."""


@audit.command("list")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 200))
@click.option("--before", metavar="ID", help="Go on behind this entry.")
@click.option("--action", help="Only this action, such as key.create.")
@click.option("--actor", help="Only this actor, such as account:ada.")
@json_option
def list_entries(
    limit: int, before: str | None, action: str | None, actor: str | None, as_json: bool
) -> None:
    """List what was done, newest first."""

    async def listing(database: Database) -> Any:
        from appliance.services.access import OPERATOR
        from appliance.services.audit import AuditLog

        return await AuditLog(database).page(
            OPERATOR, limit=limit, before=before, action=action, actor=actor
        )

    found = with_database("audit", listing)
    if as_json:
        print_json({"items": found})
        return
    table(
        ("id", "at", "actor", "action", "target", "details"),
        [
            (
                e.id,
                f"{e.created_at:%Y-%m-%d %H:%M:%S}",
                e.actor,
                e.action,
                e.target,
                json.dumps(dict(e.details), ensure_ascii=True),
            )
            for e in found
        ],
    )


@audit.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--since", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="In UTC; inclusive."
)
@json_option
def export(file: Path | None, since: datetime | None, as_json: bool) -> None:
    """Write all entries as JSONL, oldest first, to FILE or to stdout."""
    if as_json and file is None:
        raise click.UsageError("--json needs a FILE: without one the entries go to stdout.")
    start = since.replace(tzinfo=UTC) if since else None

    async def exporting(database: Database) -> int:
        import msgspec

        from appliance.services.access import OPERATOR
        from appliance.services.audit import AuditLog

        count = 0
        # Under its name when it is whole: half a log must not look like one.
        with click.open_file(str(file or "-"), "w", encoding="utf-8", atomic=bool(file)) as out:
            async for entry in AuditLog(database).export(OPERATOR, since=start):
                out.write(json.dumps(msgspec.to_builtins(entry), ensure_ascii=False) + "\n")
                count += 1
        return count

    count = with_database("audit", exporting)
    if as_json:
        print_json({"file": str(file), "entries": count})
    else:
        note(f"{count} entries.")

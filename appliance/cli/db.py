"""``appliance db``: the database."""

from __future__ import annotations

import click

from appliance.cli.output import json_option, prepare, print_json


@click.group()
def db() -> None:
    """Create and upgrade the database."""


@db.command()
@json_option
def upgrade(as_json: bool) -> None:
    """Bring the database to the form this version needs; creates it where there is none."""
    settings = prepare("db")
    from appliance.settings import ensure_folders
    from appliance.storage import migrate

    ensure_folders(settings)
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

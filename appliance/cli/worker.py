"""``appliance worker``: what happens later."""

from __future__ import annotations

import click

from appliance.cli.output import prepare, run


@click.command()
def worker() -> None:
    """Deliver webhooks and do what is due at its hour."""
    settings = prepare("worker")
    from appliance.settings import ensure_folders
    from appliance.worker import serve

    ensure_folders(settings)
    run(serve(settings))

"""The processes: ``up`` for a trial on one machine, ``api`` and ``engine`` for units."""

from __future__ import annotations

import click

from appliance.cli.output import prepare, run


@click.command()
def api() -> None:
    """Serve the REST API and the pages."""
    settings = prepare("api")
    from appliance.api.server import serve
    from appliance.bootstrap import Appliance

    async def serving() -> None:
        await serve(Appliance(settings))

    run(serving())


@click.command()
def engine() -> None:
    """Serve the language model on a Unix socket; restart and switch it."""
    settings = prepare("engine")
    from appliance.operations.engine_keeper import EngineKeeper
    from appliance.settings import ensure_folders

    ensure_folders(settings)
    EngineKeeper(settings).run()


@click.command()
def up() -> None:
    """Run API and engine in the foreground until Ctrl-C."""
    settings = prepare("up")
    from appliance.operations.foreground import Foreground

    Foreground(settings).run()

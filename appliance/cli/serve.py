"""The processes: ``up`` for a trial on one machine; ``api``, ``engine``, ``vllm`` for units."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from appliance.cli.output import prepare, run

if TYPE_CHECKING:
    from appliance.settings import Settings

chosen_option = click.option(
    "--chosen",
    is_flag=True,
    help="Start nothing: exit status 0 if the settings choose this backend, else 1.",
)


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
@chosen_option
def engine(chosen: bool) -> None:
    """Serve the language model on a Unix socket; restart and switch it."""
    settings = prepare("engine")
    if chosen:
        _tell(settings, "llamacpp")
    from appliance.operations.engine_keeper import EngineKeeper
    from appliance.settings import ensure_folders

    ensure_folders(settings)
    EngineKeeper(settings).run()


@click.command()
@chosen_option
@click.option("--print", "only_print", is_flag=True, help="Print the command line instead.")
def vllm(chosen: bool, only_print: bool) -> None:
    """Serve the language model with vLLM on this machine, on GPUs."""
    settings = prepare("vllm")
    from appliance.operations.vllm import launch, start

    if chosen:
        _tell(settings, "vllm")
    if only_print:
        click.echo(str(launch(settings)))
        return
    start(settings)


def _tell(settings: Settings, backend: str) -> None:
    """For units, which are all enabled: the setting alone decides which of them runs."""
    sys.exit(settings.backend != backend)


@click.command()
def up() -> None:
    """Run API and the model's server in the foreground until Ctrl-C."""
    settings = prepare("up")
    from appliance.operations.foreground import Foreground

    Foreground(settings).run()

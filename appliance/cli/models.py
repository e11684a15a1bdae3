"""``appliance models``: which weights there are and which are served."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.output import (
    json_option,
    note,
    prepare,
    print_json,
    progress,
    run,
    table,
    with_database,
)

if TYPE_CHECKING:
    from appliance.settings import Settings
    from appliance.storage.database import Database


@click.group()
def models() -> None:
    """List, add and switch models."""


@models.command()
@click.option(
    "--examples", default=240, show_default=True, type=click.IntRange(40), help="Messages a kind."
)
@json_option
def calibrate(examples: int, as_json: bool) -> None:
    """Measure how much the model in charge may say in categories and moods.

    Counts from the next message on. A model that was never measured has no say.
    """
    settings = prepare("models")
    from appliance.understanding.opinion import keep

    name, sha256, found, file = run(_calibrated(settings, examples))
    keep(file, sha256 or name, found)
    if as_json:
        print_json({"model": name, "sha256": sha256, "opinions": found})
        return
    table(
        ("kind", "weight", "gain in log probability", "judged on"),
        [(kind, each.weight, each.gain, each.asked) for kind, each in found.items()],
    )


async def _calibrated(settings: Settings, examples: int) -> tuple[str, str | None, Any, Path]:
    from appliance.bootstrap import EXAMPLES, Appliance
    from appliance.errors import ModelUnavailable
    from appliance.operations.client import engine_at_hand
    from appliance.understanding.calibration import calibrate
    from appliance.understanding.opinion import LABELS

    local = settings.model_copy(update={"remote_enabled": False})
    async with AsyncExitStack() as stack:
        appliance = Appliance(local)
        stack.push_async_callback(appliance.aclose)
        await stack.enter_async_context(engine_at_hand(local))
        await appliance.prepare()
        health = await appliance.model.health()
        if health.state != "ok" or health.model is None:
            raise ModelUnavailable("There is no model to calibrate: the engine does not come up.")
        with progress(examples * len(LABELS), "calibrate") as bar:
            found = await calibrate(
                appliance.model,
                appliance.ready.encoder,
                EXAMPLES,
                most=examples,
                asked=lambda: bar.update(1),
            )
        return health.model, health.sha256, found, appliance.opinions_file


@models.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List the models of the catalog and whether their weights are here."""
    settings = prepare("models")
    from appliance.llm import weights
    from appliance.llm.catalog import Catalog

    active = weights.active(settings).name
    rows = [_described(settings, entry, active) for entry in Catalog.load().entries]
    if as_json:
        print_json({"active": active, "models": rows})
        return
    table(
        ("", "name", "weights", "context", "memory CPU / GPU", "licence"),
        [
            (
                "*" if row["active"] else "",
                row["name"],
                "here" if row["available"] else "missing",
                row["context"],
                f"{row['cpu_gib']} / {row['gpu_gib']} GiB",
                row["licence"],
            )
            for row in rows
        ],
    )


@models.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one model."""
    settings = prepare("models")
    from appliance.llm import weights
    from appliance.llm.catalog import Catalog

    row = _described(settings, Catalog.load().entry(name), weights.active(settings).name)
    if as_json:
        print_json(row)
        return
    for key, value in row.items():
        click.echo(f"{key:12} {value if value is not None else '-'}")


@models.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", help="Catalog name; by default the entry with this file's name.")
@json_option
def add(file: Path, name: str | None, as_json: bool) -> None:
    """Take weights (GGUF) into the data folder and record their hash."""
    settings = prepare("models")
    from appliance.errors import InvalidInput
    from appliance.llm import weights
    from appliance.llm.catalog import Catalog
    from appliance.settings import ensure_folders

    ensure_folders(settings)
    catalog = Catalog.load()
    if name is None:
        fitting = [
            entry.name for entry in catalog.entries if entry.file.lower() == file.name.lower()
        ]
        if not fitting:
            raise InvalidInput(
                f"No model of the catalog has a file called {file.name}.",
                hint=f"Say which one it is with --name: {', '.join(catalog.names)}.",
            )
        name = fitting[0]
    if _has_log(settings):
        with_database("models", lambda database: database.check())  # else nobody could note it
    added = weights.add(settings, file, name)
    _note(settings, "model.add", name, {"file": added.file, "sha256": added.sha256})
    if as_json:
        print_json({"name": name, **_builtins(added)})
    else:
        click.echo(f"{name}: {added.file}, {added.size / 2**20:.0f} MiB, sha256 {added.sha256}")


@models.command()
@click.argument("name")
@json_option
def verify(name: str, as_json: bool) -> None:
    """Hash a model's weights again and compare with what was recorded."""
    settings = prepare("models")
    from appliance.llm import weights

    verified = weights.verify(settings, name)
    if as_json:
        print_json({"name": name, "verified": True, **_builtins(verified)})
    else:
        click.echo(f"{name}: {verified.file} is as recorded ({verified.sha256}).")


@models.command()
@click.argument("name")
@json_option
def use(name: str, as_json: bool) -> None:
    """Serve another model: start it, move over to it, end the old one."""
    settings = prepare("models")
    from appliance.errors import Conflict, WeightsError
    from appliance.llm import weights
    from appliance.llm.catalog import Catalog
    from appliance.operations import engine_keeper
    from appliance.settings import ensure_folders

    ensure_folders(settings)
    if settings.model:
        raise Conflict(
            f"The setting APPLIANCE_MODEL fixes the model to {settings.model}.",
            hint="Remove the setting; then 'models use' decides.",
        )
    entry = Catalog.load().entry(name)
    weights.locate(settings, entry)
    # First, as with heads: a switch that nobody knows of is worse than a note of one that failed.
    _note(settings, "model.use", entry.name, {"from": weights.active(settings).name})
    # vLLM serves the folder its settings name; only a restart makes it serve another one.
    own_engine = settings.backend == "llamacpp"
    running = own_engine and bool(engine_keeper.health(settings.engine_socket))
    if not running:
        weights.activate(settings, entry.name)
    else:
        note(f"Starting {name} beside the present model.")
        outcome = _wait(settings, engine_keeper.ask_switch(settings, entry.name))
        if outcome.state == "failed":
            raise WeightsError(
                f"{name} could not be started: {outcome.detail}",
                hint="The model that was served before still serves.",
            )
    if as_json:
        print_json({"model": name, "running": running})
    else:
        click.echo(
            f"{name} is served now." if running else f"{name} will be served at the next start."
        )


def _has_log(settings: Any) -> bool:
    """Whether there is a database already; weights may be brought to a fresh folder before it."""
    from appliance.storage.engines import parse_url, sqlite_file

    file = sqlite_file(parse_url(settings.resolved_database_url))
    return file is None or file.exists()


def _note(settings: Any, action: str, name: str, details: dict[str, Any]) -> None:
    """Write an act into the audit log; without it nothing is done where there is a log."""
    if not _has_log(settings):
        return

    async def noting(database: Database) -> None:
        from appliance.services.access import OPERATOR
        from appliance.services.audit import AuditLog

        await AuditLog(database).note(OPERATOR.owner, action, name, details)

    with_database("models", noting)


def _wait(settings: Any, asked: str) -> Any:
    from appliance.errors import ApplianceError
    from appliance.operations import engine_keeper

    deadline = time.monotonic() + engine_keeper.SWITCH_SECONDS + 30
    while time.monotonic() < deadline:
        switch = engine_keeper.read_switch(settings)
        if switch is not None and switch.id != asked:
            raise ApplianceError("Another switch was asked for meanwhile.", hint="Try again.")
        if switch is not None and switch.state != "asked":
            return switch
        time.sleep(engine_keeper.LOOK_SECONDS)
    raise ApplianceError("The engine did not answer the request to switch.")


def _described(settings: Any, entry: Any, active: str) -> dict[str, Any]:
    from appliance.errors import WeightsError
    from appliance.llm import weights

    try:
        path, sha256 = weights.locate(settings, entry)
    except WeightsError:
        path, sha256 = None, entry.sha256
    return {
        **_builtins(entry),
        "sha256": sha256,
        "active": entry.name == active,
        "available": path is not None,
        "path": str(path) if path else None,
    }


def _builtins(value: Any) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(value)
    return found

"""``appliance release``: which release is in charge, and how another takes its place."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli.output import json_option, note, prepare, print_json

if TYPE_CHECKING:
    from appliance.operations.release.journal import Entry
    from appliance.operations.release.layout import Layout
    from appliance.settings import Settings

root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Root of the installation; by default the one this release lies in.",
)


@click.group()
def release() -> None:
    """Put releases in charge, take them back."""


@release.command()
@click.argument("version")
@root_option
@json_option
def activate(version: str, root: Path | None, as_json: bool) -> None:
    """Put the first release in charge: the link and the units. Starts nothing."""
    layout, settings = _installation(root, version)
    from appliance.operations.release.activation import put_in_charge

    changed = put_in_charge(layout, settings, version)
    if as_json:
        print_json({"version": version, "changed": changed})
    else:
        click.echo(f"{version} {'was put' if changed else 'is'} in charge.")


@release.command()
@root_option
@json_option
def start(root: Path | None, as_json: bool) -> None:
    """Start the release in charge, now and at each boot, and wait until it can answer."""
    layout, settings = _installation(root)
    import time

    from appliance.operations.release.services import services_of
    from appliance.operations.release.serving import version_serving, wait_until_ready

    services = services_of(layout, settings)
    began = time.monotonic()
    services.enable()
    services.start()
    wait_until_ready(services, settings)
    seconds = round(time.monotonic() - began, 1)
    version = version_serving(settings)
    if as_json:
        print_json({"version": version, "seconds": seconds})
    else:
        click.echo(f"{version} is ready after {seconds} s; its log: {services.log}")


@release.command()
@root_option
def stop(root: Path | None) -> None:
    """Stop the services and wait for their end; the next boot starts them again."""
    layout, settings = _installation(root)
    from appliance.operations.release.services import services_of

    services_of(layout, settings).stop()
    click.echo("Stopped.")


@release.command()
@root_option
@json_option
def status(root: Path | None, as_json: bool) -> None:
    """Tell which releases are here, which one is in charge and which one answers."""
    layout, settings = _installation(root)
    from appliance.operations.release.activation import describe

    found = describe(layout, settings)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        click.echo(f"{name.replace('_', ' ')}: {'-' if shown in (None, '') else shown}")


@release.command()
@click.argument("version")
@root_option
@json_option
def upgrade(version: str, root: Path | None, as_json: bool) -> None:
    """Put a newer release in charge, which undoes itself unless it does what the old one did."""
    layout, settings = _installation(root, version)
    from appliance.operations.release.upgrade import upgrade as work

    _tell(work(layout, settings, version, note), as_json)


@release.command()
@click.option(
    "--discard-new", is_flag=True, help="Give up what was written since; a backup is kept."
)
@root_option
@json_option
def rollback(discard_new: bool, root: Path | None, as_json: bool) -> None:
    """Go back to the release before, with its database where nothing was written since."""
    layout, settings = _installation(root)
    from appliance.operations.release.upgrade import rollback as work

    _tell(work(layout, settings, note, discard_new=discard_new), as_json)


@release.command()
@click.option("--boot", is_flag=True, help="Start nothing: the services wait for this command.")
@root_option
@json_option
def recover(boot: bool, root: Path | None, as_json: bool) -> None:
    """Finish or undo an upgrade that was killed; does nothing where there is none."""
    layout, settings = _installation(root)
    from appliance.operations.release.upgrade import recover as work

    entry = work(layout, settings, note, start=not boot)
    if as_json:
        print_json({"recovered": entry})
    elif entry is None:
        click.echo("Nothing is unfinished.")
    else:
        click.echo(f"The {entry.operation} to {entry.after}: {entry.outcome}. {entry.reason}")


@release.command(hidden=True)
def guard() -> None:
    """Wait for the end of an upgrade, and undo it if it was killed."""
    from appliance.operations.release.guardian import is_over

    if is_over(sys.stdin.buffer):
        return
    layout, settings = _installation(None)
    from appliance.operations.release.upgrade import LOCK_SECONDS
    from appliance.operations.release.upgrade import recover as work

    work(layout, settings, note, patience=LOCK_SECONDS)


def _tell(entry: Entry, as_json: bool) -> None:
    downtime = entry.facts.get("downtime_seconds")
    if as_json:
        told = {"before": entry.before, "after": entry.after, "downtime_seconds": downtime}
        reason = {"reason": entry.reason} if entry.reason else {}
        print_json({**told, "outcome": entry.outcome, "seconds": entry.seconds, **reason})
    elif downtime is None:
        click.echo(f"{entry.after} is in charge. {entry.reason}")
    else:
        click.echo(f"{entry.after} is in charge; customers waited {downtime} s.")


def _installation(root: Path | None, version: str | None = None) -> tuple[Layout, Settings]:
    """Layout and settings of an installation.

    Settings belong to a root, and only code that lies below it reads them: for another root its own
    program is run instead of this one, with the same words.

    :param version: the release whose program that is; by default the one in charge.
    """
    from appliance.operations.release.layout import Layout
    from appliance.settings import ROOT

    if root is None or root.resolve() == ROOT:
        return Layout.here(), prepare("release")
    if ROOT is not None:
        raise click.UsageError(f"This release belongs to {ROOT}; run one that lies below {root}.")
    layout = Layout(root.resolve())
    chosen = version or layout.version
    if chosen is None:
        raise click.UsageError(f"No release is in charge below {root}.")
    layout.require(chosen)
    # Without PYTHONPATH, which would have that program run this very checkout, and so on for ever.
    words = ["/usr/bin/env", "-u", "PYTHONPATH", str(layout.program(chosen)), *sys.argv[1:]]
    return os.execv(words[0], words)  # noqa: S606 - the same command, of the other root

"""``appliance learn``: what the desk teaches, and which heads read its messages."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from appliance.cli.output import (
    json_option,
    note,
    prepare,
    print_json,
    require_open,
    run,
    table,
    with_database,
)
from appliance.domain.policy import CATEGORIES, INTENTS, SENTIMENTS

if TYPE_CHECKING:
    from appliance.bootstrap import Appliance
    from appliance.services.learning import LearningStatus
    from appliance.storage.database import Database

T = TypeVar("T")

SHIPPED = "shipped"


@click.group()
def learn() -> None:
    """Correct messages, learn from them, and go back to earlier heads."""


@learn.command()
@click.argument("message_id")
@click.option("--category", type=click.Choice(CATEGORIES))
@click.option("--sentiment", type=click.Choice(SENTIMENTS))
@click.option("--intent", type=click.Choice(INTENTS))
@json_option
def correct(message_id: str, category: Any, sentiment: Any, intent: Any, as_json: bool) -> None:
    """Say what a customer's message is, by its id or that of the answer to it.

    An appliance that is running learns from it within seconds.
    """
    if not (category or sentiment or intent):
        raise click.UsageError("Name a --category, a --sentiment or an --intent.")

    async def correcting(database: Database) -> Any:
        from appliance.services.access import OPERATOR
        from appliance.services.corrections import Corrections, labels

        said = labels(category, sentiment, intent)
        return await Corrections(database).correct(OPERATOR, message_id, said)

    corrected = with_database("learn", correcting)
    if as_json:
        print_json(corrected)
    else:
        said = [corrected.category, corrected.sentiment, corrected.intent]
        click.echo(f"Message {corrected.message_id} is {', '.join(filter(None, said))}.")


@learn.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@json_option
def import_file(file: Path, as_json: bool) -> None:
    """Import labelled messages, JSONL: "text" and "category", "sentiment" or "intent"."""
    from appliance.services.corrections import read_labelled

    examples = read_labelled(file)

    async def importing(database: Database) -> Any:
        from appliance.services.access import OPERATOR
        from appliance.services.corrections import Corrections

        return await Corrections(database).add(OPERATOR, examples)

    imported = with_database("learn", importing)
    if as_json:
        print_json(imported)
    else:
        click.echo(f"{imported.added} added, {imported.ignored} known already.")


@learn.command()
@json_option
def status(as_json: bool) -> None:
    """Tell what there is to learn from, which heads read, and why a candidate was refused."""
    found = _with_appliance(lambda appliance: appliance.learning.status())
    if as_json:
        print_json(found)
    else:
        _show(found)


@learn.command()
@json_option
def retrain(as_json: bool) -> None:
    """Train the heads on all there is now, and use them where they do not lose. Exit 1 if a head
    was refused."""

    async def retraining(appliance: Appliance) -> Any:
        await appliance.prepare()
        return await appliance.ready.retraining.retrain("operator")

    done = _with_appliance(retraining)
    refused = [verdict for verdict in done.verdicts if not verdict.kept]
    if as_json:
        print_json(done)
    else:
        what = "is in charge" if done.switched else "stays in charge"
        click.echo(f"{_name(done.version)} {what} ({done.seconds:.1f} s).")
        _show_verdicts([_as_dict(verdict) for verdict in done.verdicts])
    sys.exit(1 if refused else 0)


@learn.command()
@click.argument("version", required=False)
@json_option
def rollback(version: str | None, as_json: bool) -> None:
    """Go back to an earlier version, by default the one before; 0 or "shipped": without learning.

    It stays in charge until something new is said. A running appliance uses it at once.
    """
    number = 0 if version == SHIPPED else None
    if version not in (None, SHIPPED):
        try:
            number = int(str(version))
        except ValueError:
            raise click.BadParameter(f"{version!r} is no version.", param_hint="VERSION") from None

    async def going_back(appliance: Appliance) -> int:
        from appliance.services.access import OPERATOR

        return await appliance.learning.rollback(OPERATOR, number)

    now = _with_appliance(going_back)
    if as_json:
        print_json({"version": now})
    else:
        click.echo(f"{_name(now)} is in charge.")


def _with_appliance(work: Callable[[Appliance], Awaitable[T]]) -> T:
    settings = prepare("learn")
    require_open()

    async def working() -> T:
        from appliance.bootstrap import Appliance

        appliance = Appliance(settings)
        try:
            await appliance.database.check()
            return await work(appliance)
        finally:
            await appliance.aclose()

    return run(working())


def _show(found: LearningStatus) -> None:
    since = f" since {found.since[:19]}" if found.since else ""
    click.echo(f"{_name(found.version)} is in charge{since}.")
    if not found.usable:
        note("Its file is missing or damaged: the shipped heads read instead.")
    if found.pending:
        click.echo("There is something new to learn from.")
    rows = [
        (head, label, count)
        for head, counts in found.examples.items()
        for label, count in counts.items()
    ]
    if rows:
        click.echo("\nlearnt from")
        table(("head", "label", "texts"), rows)
        sources = ", ".join(f"{name} {count}" for name, count in found.sources.items())
        click.echo(f"by source: {sources}; {found.judges} texts judge")
        if found.golden:
            click.echo(f"{found.golden} texts are golden and do not train.")
    if found.latest is not None:
        click.echo(f"\nlatest candidate, {found.latest.at[:19]}, {found.latest.seconds:.1f} s")
        _show_verdicts(found.latest.verdicts)
    if found.versions:
        click.echo("\nversions")
        table(
            ("version", "made", "heads learnt"),
            [
                (n.version, n.at[:19], ", ".join(v["head"] for v in n.verdicts if v["kept"]))
                for n in found.versions
            ],
        )


def _show_verdicts(verdicts: Sequence[dict[str, Any]]) -> None:
    if not verdicts:
        click.echo("Nothing would be read differently.")
        return
    table(
        ("head", "texts", "corrections", "shipped", "decision"),
        [
            (
                v["head"],
                v["taught"],
                _duel(v["desk"]),
                _duel(v["shipped"]),
                "kept" if v["kept"] else f"refused: {v['why']}",
            )
            for v in verdicts
        ],
    )


def _duel(duel: dict[str, Any]) -> str:
    return f"{duel['before']:.3f} > {duel['after']:.3f} (n {duel['n']})" if duel["n"] else "-"


def _as_dict(verdict: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(verdict)


def _name(version: int) -> str:
    return f"Version {version}" if version else "Version 0 (as shipped)"

"""``appliance eval``: the report card on a golden set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from appliance.cli.output import (
    json_option,
    note,
    prepare,
    print_json,
    progress,
    run,
    table,
)


@click.command("eval")
@click.option(
    "--set",
    "golden",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Golden set, JSONL; by default the one of the starter knowledge base.",
)
@json_option
def evaluate(golden: Path | None, as_json: bool) -> None:
    """Measure the desk on a golden set with the knowledge and the model it has now."""
    settings = prepare("eval")
    from appliance.evaluation.golden import read_golden
    from appliance.settings import HOME

    items = read_golden(golden or HOME / "kb" / "golden.jsonl")

    async def evaluating() -> dict[str, Any]:
        from appliance.bootstrap import Appliance
        from appliance.evaluation.metrics import report
        from appliance.evaluation.run import run_golden
        from appliance.operations.client import engine_at_hand

        appliance = Appliance(settings)
        try:
            await appliance.database.check()
            async with engine_at_hand(settings) as well:
                if not well:
                    note("The engine does not come up; measuring without the model.")
                await appliance.prepare()
                seen = await appliance.monitor.look()
                outcomes = []
                with progress(len(items), "eval") as bar:
                    async for outcome in run_golden(appliance.ready.graph, items):
                        outcomes.append(outcome)
                        bar.update(1)
            return report(outcomes, seen.model.model)
        finally:
            await appliance.aclose()

    card = run(evaluating())
    if as_json:
        print_json(card)
    else:
        _print(card)


def _print(card: dict[str, Any]) -> None:
    rows = []
    for part in ("category", "sentiment", "anger", "escalation", "retrieval", "answers"):
        for name, value in card.get(part, {}).items():
            if isinstance(value, float) or value is None:
                rows.append((part, name, "-" if value is None else f"{value:.3f}", card[part]["n"]))
    table(("part", "figure", "value", "n"), rows)
    for part in ("category", "sentiment"):
        if part in card:
            click.echo(f"\n{part}: wanted, then found")
            for wanted, found in card[part]["confusion"].items():
                click.echo(f"  {wanted:10} " + ", ".join(f"{k} {v}" for k, v in found.items()))
    click.echo("\nseconds by stage")
    table(
        ("stage", "p50", "p95"),
        [(stage, f"{t['p50']:.3f}", f"{t['p95']:.3f}") for stage, t in card["latency"].items()],
    )
    tokens = ", ".join(f"{name} {value or 0:.0f}" for name, value in card["tokens"].items())
    click.echo(f"\nmodel {card['model']}, modes {card['modes']}, tokens a query: {tokens}")

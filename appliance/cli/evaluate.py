"""``appliance eval``: the report card on a golden set, and whether it is good enough."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.output import (
    fail,
    json_option,
    note,
    prepare,
    print_json,
    progress,
    run,
)

if TYPE_CHECKING:
    from appliance.evaluation.golden import GoldenItem
    from appliance.settings import Settings

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
MODES = ("drafted", "quoted", "curated")
Bounds = tuple[tuple[str, float], ...]


def _bounds(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> Bounds:
    """``FIGURE=VALUE``; a misspelt figure is found before the run, not after it."""
    bounds = []
    for text in given:
        figure, _, number = text.partition("=")
        from appliance.evaluation.metrics import is_figure

        if not is_figure(figure):
            raise click.BadParameter(f"{figure!r} is no figure of the report.")
        try:
            bounds.append((figure, float(number)))
        except ValueError:
            raise click.BadParameter(f"{text!r} is not FIGURE=VALUE.") from None
    return tuple(bounds)


@click.command("eval")
@click.option(
    "--set",
    "golden",
    type=FILE,
    help="Golden set, JSONL; by default the one of the starter knowledge base.",
)
@click.option("--desk", is_flag=True, help="Measure on the desk's own golden set instead.")
@click.option("--kb", type=FILE, help="Measure with this knowledge file; the desk's is left alone.")
@click.option(
    "--mode", type=click.Choice(MODES), help="How to answer; by default as the settings say."
)
@click.option("--no-model", is_flag=True, help="Measure as if the language model were down.")
@click.option(
    "--judge",
    type=FILE,
    help="Measure the judge of answers instead, on pairs of passage and sentence, JSONL.",
)
@click.option(
    "--compare",
    type=FILE,
    help="Earlier report; exit 1 where this one is worse by more than chance explains.",
)
@click.option(
    "--save",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep the report, with every query, for --compare.",
)
@click.option(
    "--min",
    "least",
    multiple=True,
    metavar="FIGURE=VALUE",
    callback=_bounds,
    help="Exit 1 where a figure is lower, as in category.accuracy=.9; repeatable.",
)
@click.option(
    "--max",
    "most",
    multiple=True,
    metavar="FIGURE=VALUE",
    callback=_bounds,
    help="Exit 1 where a figure is higher, as in latency.total.p95=2; repeatable.",
)
@click.option(
    "--worst",
    default=10,
    show_default=True,
    type=click.IntRange(0),
    help="Mistakes of each kind to show.",
)
@click.option("--items", is_flag=True, help="With --json: what came of each query as well.")
@json_option
def evaluate(
    golden: Path | None,
    desk: bool,
    kb: Path | None,
    mode: str | None,
    no_model: bool,
    judge: Path | None,
    compare: Path | None,
    save: Path | None,
    least: Bounds,
    most: Bounds,
    worst: int,
    items: bool,
    as_json: bool,
) -> None:
    """Measure the desk on a golden set with the knowledge and the model it has now.

    Figures are named as the report does, seconds such as latency.total.p95.
    """
    if desk and (golden or kb):
        raise click.UsageError("--desk goes with neither --set nor --kb: it is the desk itself.")
    if judge and (golden or desk or kb or compare or save):
        raise click.UsageError("--judge measures pairs, and no queries: it goes with no other set.")
    settings = prepare("eval")
    if judge:
        _measure_judge(judge, least, most, worst, as_json=as_json)
        return
    import msgspec

    from appliance.evaluation.compare import Report
    from appliance.evaluation.compare import compare as comparing
    from appliance.evaluation.golden import read_golden
    from appliance.settings import HOME

    before = Report.read(compare) if compare else None
    golden = golden or HOME / "kb" / "golden.jsonl"
    queries = None if desk else read_golden(golden)
    settings = settings.model_copy(
        update={"answer_mode": mode or settings.answer_mode}
        | ({"remote_enabled": False} if no_model or kb else {})
    )
    card = run(_measure(settings, queries, kb, no_model=no_model))
    card["run"] = {
        "set": "desk" if desk else golden.name,
        "kb": kb.name if kb else None,
        "answer_mode": settings.answer_mode,
        "with_model": not no_model,
    }
    document = msgspec.to_builtins(card)
    if save:
        _save(save, document)
    report = Report("this run", document)
    comparison = comparing(before, report) if before else None
    missed = _missed(report.figures, least, most)
    if as_json:
        shown = document if items else {k: v for k, v in document.items() if k != "items"}
        print_json(shown | ({"compare": comparison} if comparison else {}))
    else:
        from appliance.cli.report_card import print_card, print_comparison

        print_card(card, worst)
        if comparison:
            print_comparison(comparison)
    if comparison and comparison.regressions:
        names = ", ".join(comparison.regressions)
        missed.append(f"Worse than in {compare} by more than chance explains: {names}.")
    _leave(missed)


async def _measure(
    settings: Settings, queries: list[GoldenItem] | None, kb: Path | None, *, no_model: bool
) -> dict[str, Any]:
    """The report on these queries, or on the desk's own golden set."""
    from appliance.cli.measured_desk import measured_desk
    from appliance.evaluation.golden import desk_golden
    from appliance.evaluation.metrics import report
    from appliance.evaluation.run import run_golden
    from appliance.operations.client import engine_at_hand

    async with AsyncExitStack() as stack:
        appliance = await stack.enter_async_context(measured_desk(settings, kb, no_model=no_model))
        if queries is None:
            queries = desk_golden(await appliance.golden.items())
        if not no_model and not await stack.enter_async_context(engine_at_hand(settings)):
            note("The engine does not come up; measuring without the model.")
        await appliance.prepare()
        seen = await appliance.monitor.look()
        outcomes = []
        with progress(len(queries), "eval") as bar:
            async for outcome in run_golden(appliance.ready.graph, queries):
                outcomes.append(outcome)
                bar.update(1)
        return report(outcomes, seen.model.model)


def _measure_judge(file: Path, least: Bounds, most: Bounds, worst: int, *, as_json: bool) -> None:
    from appliance.evaluation.compare import figures
    from appliance.evaluation.judge import judge_report, read_pairs

    card = {"judge": judge_report(read_pairs(file))}
    if as_json:
        print_json(card)
    else:
        from appliance.cli.report_card import print_judge

        print_judge(card, worst)
    _leave(_missed(dict(figures(card)), least, most))


def _leave(missed: list[str]) -> None:
    """End the command with what does not hold, if anything."""
    for detail in missed:
        fail(detail)
    if missed:
        note("hint: the mistakes are listed without --json, and with --json --items.")
        sys.exit(1)


def _missed(figures: dict[str, float | None], least: Bounds, most: Bounds) -> list[str]:
    """What was asked for and does not hold; what was not measured does not hold."""
    missed = []
    for bounds, word, sign in ((least, "at least", 1), (most, "at most", -1)):
        for figure, bound in bounds:
            value = figures.get(figure)
            if value is None:
                missed.append(f"{figure} was not measured; {word} {bound:g} was asked for.")
            elif sign * value < sign * bound:
                missed.append(f"{figure} is {value:g}; {word} {bound:g} was asked for.")
    return missed


def _save(file: Path, document: dict[str, Any]) -> None:
    """Keep a report with its queries, for this user only: they are customers' words."""
    import msgspec

    from appliance.errors import InvalidInput

    try:
        file.touch(mode=0o600)
        file.write_bytes(msgspec.json.format(msgspec.json.encode(document)))
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {error.strerror}.") from error

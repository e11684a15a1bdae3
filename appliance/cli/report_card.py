"""The report card and the comparison of two, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.output import note, table
from appliance.domain.policy import CATEGORIES, SENTIMENTS

if TYPE_CHECKING:
    from appliance.evaluation.compare import Comparison

SOURCE_COLUMNS = {
    "category": ("category", "accuracy"),
    "sentiment": ("sentiment", "accuracy"),
    "escalated": ("escalation", "recall"),
    "needlessly": ("escalation", "false_rate"),
    "facts": ("answers", "fact_recall"),
    "wrong answers": ("answers", "wrong_answer_rate"),
    "needless refusals": ("answers", "needless_refusal_rate"),
}
"""Columns of the table by source: heading, part and figure."""


def print_card(card: dict[str, Any], most: int) -> None:
    """Everything of a report.

    :param most: mistakes of each kind.
    """
    _print_figures(card)
    _print_confusion("category", CATEGORIES, card)
    _print_confusion("sentiment", SENTIMENTS, card)
    _print_sources(card)
    _print_worst(card, most)
    click.echo("\nseconds by stage")
    table(
        ("stage", "p50", "p95"),
        [(stage, f"{t['p50']:.3f}", f"{t['p95']:.3f}") for stage, t in card["latency"].items()],
    )
    tokens = ", ".join(f"{name} {value or 0:.0f}" for name, value in card["tokens"].items())
    modes = ", ".join(f"{mode} {count}" for mode, count in card["modes"].items()) or "none"
    click.echo(f"\nmodel {card['model']}; answers: {modes}; tokens a query: {tokens}")
    if card["failures"]:
        note(f"Agents that failed and fell back: {card['failures']}; see the log.")


def print_comparison(comparison: Comparison) -> None:
    """Figure by figure; without those that stayed and say nothing of quality."""
    ground = (
        f"query by query, {comparison.shared} shared"
        if comparison.paired
        else "as two samples, for want of the queries: keep them with --save"
    )
    click.echo(f"\ncompared {ground}")
    if comparison.paired and (comparison.before_only or comparison.after_only):
        click.echo(f"  left out: {comparison.before_only} of then, {comparison.after_only} of now")
    table(
        ("figure", "then", "now", "difference", "lost", "gained", "chance", ""),
        [
            (
                change.figure,
                _number(change.before),
                _number(change.after),
                "-" if change.difference is None else f"{change.difference:+.3f}",
                "" if change.lost is None else change.lost,
                "" if change.gained is None else change.gained,
                "" if change.chance is None else f"{change.chance:.3f}",
                "" if change.verdict in ("same", "told") else change.verdict.upper(),
            )
            for change in comparison.changes
            if change.difference or change.verdict != "told"
        ],
    )


def print_judge(card: dict[str, Any], most: int) -> None:
    """The judge's figures, and some of what it judged wrong.

    :param most: mistakes of each side.
    """
    from appliance.evaluation.worst import SAID_CHARS, TEXT_CHARS, short

    judge = card["judge"]
    rows = []
    for side in ("rejected", "kept"):
        whole = {f"judge.{side}.share": judge[side]}
        kinds = {f"judge.{side}.by_kind.{k}.share": v for k, v in judge[side]["by_kind"].items()}
        rows += [(name, _number(of["share"]), of["n"]) for name, of in (whole | kinds).items()]
    table(("figure", "value", "n"), [row for row in rows if row[2]])
    for title, supported in (("passed wrongly", False), ("rejected wrongly", True)):
        wrong = [m for m in judge["mistakes"] if m["supported"] is supported][:most]
        if wrong:
            click.echo(f"\n{title}")
            table(
                ("  kind", "sentence", "reason"),
                [
                    (
                        f"  {mistake['kind']}",
                        short(mistake["sentence"], TEXT_CHARS),
                        short(mistake["reason"], SAID_CHARS),
                    )
                    for mistake in wrong
                ],
            )


def _print_figures(card: dict[str, Any]) -> None:
    """Figures under the names by which --min and --max know them."""
    from appliance.evaluation.compare import figures

    rows = []
    for name, value in figures(card):
        part = name.partition(".")[0]
        if value is None or part in ("latency", "tokens") or ".by_source." in name:
            continue
        # The calibration error is of all labels, and no mean.
        n = card[part]["n"] if name.endswith(".ece") else card["counts"][name]
        rows.append((name, f"{value:.1f}" if name.endswith(".words") else f"{value:.3f}", n))
    table(("figure", "value", "n"), rows)


def _print_confusion(part: str, labels: Sequence[str], card: dict[str, Any]) -> None:
    """Rows are what was wanted, columns what was found; labels that never occur are left out."""
    confusion: dict[str, dict[str, int]] = card.get(part, {}).get("confusion", {})
    if not confusion:
        return
    wanted = [label for label in labels if label in confusion]
    found = [label for label in labels if any(label in row for row in confusion.values())]
    rows = [
        (label, *(confusion[label].get(to, 0) for to in found), sum(confusion[label].values()))
        for label in wanted
    ]
    sums = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    click.echo("")
    _right_aligned((f"{part}: wanted \\ found", *found, "total"), [*rows, ("total", *sums)])


def _right_aligned(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table whose numbers stand below one another."""
    widths = [max(len(str(line[at])) for line in [headers, *rows]) for at in range(len(headers))]
    for name, *cells in [headers, *rows]:
        numbers = (str(cell).rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        click.echo("  ".join((str(name).ljust(widths[0]), *numbers)))


def _print_sources(card: dict[str, Any]) -> None:
    """One row a source, where there are several."""
    parts = {part: card.get(part, {}).get("by_source", {}) for part, _ in SOURCE_COLUMNS.values()}
    queries = Counter(item.source for item in card["items"])
    columns = {name: of for name, of in SOURCE_COLUMNS.items() if parts[of[0]]}
    if len(queries) < 2 or not columns:
        return
    rows = [
        (
            source,
            number,
            *(_number(parts[part].get(source, {}).get(name)) for part, name in columns.values()),
        )
        for source, number in queries.items()
    ]
    click.echo("")
    _right_aligned(("source", "queries", *columns), rows)


def _print_worst(card: dict[str, Any], most: int) -> None:
    from appliance.evaluation.worst import worst

    for kind, mistakes in worst(card["items"], most).items():
        click.echo(f"\n{kind}")
        table(("  wanted", "came", "text"), [(f"  {m.wanted}", m.came, m.text) for m in mistakes])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

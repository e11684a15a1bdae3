"""``appliance doctor``: is everything well, and if not, what to do."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from appliance.cli.output import json_option, prepare, print_json, run
from appliance.errors import SettingsError

if TYPE_CHECKING:
    from appliance.operations.doctor import Finding

MARKS = {"ok": "ok  ", "warn": "WARN", "bad": "BAD "}
WIDTH = 80


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check the appliance; exit 1 when something is wrong."""
    from appliance.operations.doctor import examine, examine_without_settings

    try:
        settings = prepare("doctor")
    except SettingsError as error:
        findings = examine_without_settings(error)
    else:
        findings = run(examine(settings))
    if as_json:
        print_json({"well": all(f.state != "bad" for f in findings), "findings": findings})
    else:
        _page(findings)
    if any(finding.state == "bad" for finding in findings):
        sys.exit(1)


def _page(findings: Sequence[Finding]) -> None:
    from appliance.operations.doctor import grouped

    for group, few in grouped(findings):
        click.echo(group)
        for finding in few:
            click.echo(_filled(f"  {MARKS[finding.state]}  {finding.what}: {finding.detail}", 8))
            if finding.hint and finding.state != "ok":
                click.echo(_filled(f"        -> {finding.hint}", 11))
    counts = [sum(f.state == state for f in findings) for state in ("bad", "warn")]
    click.echo(f"\n{counts[0]} bad, {counts[1]} to look at, of {len(findings)} findings.")


def _filled(line: str, indent: int) -> str:
    return textwrap.fill(
        line,
        WIDTH,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )

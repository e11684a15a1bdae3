"""``appliance doctor``: is everything well, and if not, what to do."""

from __future__ import annotations

import sys

import click

from appliance.cli.output import json_option, prepare, print_json, run


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check the appliance; exit 1 when something is wrong."""
    settings = prepare("doctor")
    from appliance.operations.doctor import examine

    findings = run(examine(settings))
    if as_json:
        print_json({"well": all(f.state != "bad" for f in findings), "findings": findings})
    else:
        marks = {"ok": "ok  ", "warn": "WARN", "bad": "BAD "}
        for finding in findings:
            click.echo(f"{marks[finding.state]}  {finding.what}: {finding.detail}")
            if finding.hint and finding.state != "ok":
                click.echo(f"      -> {finding.hint}")
    if any(finding.state == "bad" for finding in findings):
        sys.exit(1)

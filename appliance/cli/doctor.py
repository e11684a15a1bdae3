"""``appliance doctor``: is everything well, and if not, what to do."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli.output import json_option, prepare, print_json, run
from appliance.errors import SettingsError

if TYPE_CHECKING:
    from appliance.operations.doctor import Finding
    from appliance.operations.silence.report import Silence
    from appliance.settings import Settings

MARKS = {"ok": "ok  ", "warn": "WARN", "bad": "BAD "}
WIDTH = 80


@click.command()
@click.option(
    "--prove-offline",
    "offline",
    is_flag=True,
    help="Try to reach out from inside each unit's sandbox; exit 1 unless all is refused.",
)
@click.option(
    "--archive",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a redacted archive for support: no conversation, no secret.",
)
@click.option("--knock", is_flag=True, hidden=True)
@json_option
def doctor(offline: bool, archive: Path | None, knock: bool, as_json: bool) -> None:
    """Check the appliance; exit 1 when something is wrong."""
    if knock:
        from appliance.operations.silence.knocking import knock as knock_now

        print_json(knock_now())
        return
    if offline:
        _prove(as_json)
        return
    from appliance.operations.doctor import examine, examine_without_settings

    settings = None
    try:
        settings = prepare("doctor")
    except SettingsError as error:
        findings = examine_without_settings(error)
    else:
        findings = run(examine(settings))
    if archive is not None:
        _pack(archive, settings, findings, as_json)
        return
    if as_json:
        print_json({"well": all(f.state != "bad" for f in findings), "findings": findings})
    else:
        _page(findings)
    if any(finding.state == "bad" for finding in findings):
        sys.exit(1)


def _prove(as_json: bool) -> None:
    from appliance.operations.silence.report import prove

    settings = prepare("doctor")
    report = run(prove(settings))
    if as_json:
        print_json(report)
    else:
        _silence(report)
    if not report.silent:
        sys.exit(1)


def _silence(report: Silence) -> None:
    click.echo(f"Remote backend {report.remote}\n\nFrom inside each unit's sandbox")
    for proof in report.units:
        name = proof.unit.removeprefix("appliance-").removesuffix(".service")
        click.echo(_filled(f"  {proof.verdict:<9} {name}: {proof.how}", 12))
        if proof.accounted:
            counted = ", ".join(f"{what} {number}" for what, number in proof.accounted.items())
            click.echo(f"            {counted}")
    click.echo("\nSockets of the appliance's processes")
    for found in report.sockets:
        where = f"{found.local} -> {found.remote}" if found.remote else found.local
        click.echo(f"  {found.process} {found.kind} {found.state} {where} ({found.reach})")
    if not report.sockets:
        click.echo("  none but Unix sockets")
    click.echo("\nWritten down of leaving")
    told = report.outbound
    if told is None:
        click.echo("  the database cannot be read")
        return
    latest = f", the latest {told.webhook_latest:%Y-%m-%d %H:%M}" if told.webhook_latest else ""
    click.echo(f"  webhooks: {told.webhook_attempts} attempts{latest}")
    for url in told.receivers:
        click.echo(f"    to {url}")
    latest = f", the latest {told.remote_latest:%Y-%m-%d %H:%M}" if told.remote_latest else ""
    click.echo(f"  remote model: {told.remote_calls} calls{latest}")


def _pack(
    file: Path, settings: Settings | None, findings: Sequence[Finding], as_json: bool
) -> None:
    from appliance.operations.doctor.archive import pack

    members = run(pack(file, settings, findings))
    if as_json:
        print_json({"file": str(file), "members": members})
        return
    click.echo(f"{file} holds, redacted:")
    for member in members:
        click.echo(f"  {member.name:<16} {member.size:>8} bytes  {member.told}")


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

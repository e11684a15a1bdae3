"""Everything looked at, side by side: what hangs in one place holds up no other."""

from __future__ import annotations

import asyncio
from typing import Final

from appliance.errors import SettingsError
from appliance.operations.doctor import backups, clock, logbook, machine, model, serving, software
from appliance.operations.doctor.finding import GROUPS, Finding, Look, bad, guarded
from appliance.operations.doctor.stored import Stored
from appliance.settings import Settings

IN_ANY_CASE: Final[tuple[tuple[str, Look], ...]] = (
    ("version", software.version),
    ("units", software.units),
    ("log", logbook.examine),
)
"""Looks that need no settings, and what each is a finding of."""


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything; a look that fails is a finding, not an error. In the page's order."""
    in_threads: list[tuple[str, Look]] = [
        *IN_ANY_CASE,
        ("configuration", software.configuration),
        ("folders", lambda: machine.folders(settings)),
        ("disk", lambda: machine.disk(settings)),
        ("memory", lambda: machine.memory(settings)),
        ("backup", lambda: backups.examine(settings)),
        ("embeddings", lambda: model.embeddings(settings)),
        ("model", lambda: model.chosen(settings)),
        ("engine", lambda: model.engine(settings)),
        ("certificate", lambda: serving.certificate(settings)),
    ]
    looks = asyncio.gather(*(asyncio.to_thread(guarded, *look) for look in in_threads))
    stored, api, found = await asyncio.gather(Stored.look(settings), _api(settings), looks)
    findings = [f for few in (api, stored.findings(settings), *found) for f in few]
    findings += clock.examine(stored.newest)
    return _in_order(findings)


def examine_without_settings(error: SettingsError) -> list[Finding]:
    """What can be said while the configuration is not valid."""
    findings = [bad("configuration", error)]
    for what, look in (*IN_ANY_CASE, ("memory", machine.memory)):
        findings += guarded(what, look)
    return _in_order(findings + clock.examine(None))


async def _api(settings: Settings) -> list[Finding]:
    try:
        return await serving.api(settings)
    except Exception as error:  # a finding, whatever it is
        return [bad("api", error)]


def _in_order(findings: list[Finding]) -> list[Finding]:
    names = [name for group in GROUPS.values() for name in group]
    return sorted(findings, key=lambda finding: names.index(finding.what))

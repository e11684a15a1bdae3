"""Everything looked at, side by side: what hangs in one place holds up no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from appliance.errors import ApplianceError, SettingsError
from appliance.operations.doctor import backups, clock, logbook, machine, model, serving, software
from appliance.operations.doctor.finding import GROUPS, Finding, bad
from appliance.operations.doctor.stored import Stored
from appliance.settings import Settings


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything; a look that fails is a finding, not an error. In the page's order."""
    in_threads: list[Callable[[], list[Finding]]] = [
        software.version,
        software.configuration,
        software.units,
        logbook.examine,
        lambda: machine.folders(settings),
        lambda: machine.disk(settings),
        lambda: machine.memory(settings),
        lambda: backups.examine(settings),
        lambda: model.embeddings(settings),
        lambda: model.weights_and_engine(settings),
        lambda: serving.certificate(settings),
    ]
    looks = asyncio.gather(*(asyncio.to_thread(_guarded, look) for look in in_threads))
    stored, api, found = await asyncio.gather(Stored.look(settings), serving.api(settings), looks)
    findings = [f for few in (api, stored.findings(settings), *found) for f in few]
    findings += clock.examine(stored.newest)
    return _in_order(findings)


def examine_without_settings(error: SettingsError) -> list[Finding]:
    """What can be said while the configuration is not valid."""
    findings = [bad("configuration", error)]
    for look in (software.version, software.units, logbook.examine, machine.memory):
        findings += _guarded(look)
    return _in_order(findings + clock.examine(None))


def _guarded(look: Callable[[], list[Finding]]) -> list[Finding]:
    try:
        return look()
    except ApplianceError as error:
        return [bad("folders", error)]
    except OSError as error:
        where = error.filename or "a file"
        return [Finding("folders", "bad", f"{where}: {error.strerror}.", "Check the disk.")]


def _in_order(findings: list[Finding]) -> list[Finding]:
    names = [name for group in GROUPS.values() for name in group]
    return sorted(findings, key=lambda finding: names.index(finding.what))

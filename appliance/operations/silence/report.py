"""The page: the remote backend first, then each unit's proof, then who listens and who talks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

from appliance.errors import ApplianceError
from appliance.llm.remote import CALL
from appliance.operations.doctor.inventory import processes
from appliance.operations.silence import units
from appliance.operations.silence.sockets import Socket, sockets
from appliance.operations.silence.units import UnitProof
from appliance.settings import Settings
from appliance.storage.database import Database
from appliance.storage.health import Outbound


@dataclass(frozen=True, slots=True)
class Silence:
    """``outbound`` is what the appliance itself wrote down of leaving; None where the database
    cannot be read. ``silent`` says whether every unit was refused every attempt."""

    at: datetime
    remote: str
    silent: bool
    units: list[UnitProof]
    sockets: list[Socket]
    outbound: Outbound | None


async def prove(settings: Settings) -> Silence:
    """Try, look, and count."""
    found = units.prove()
    remote = "off: no customer's word leaves this machine"
    if settings.remote_enabled:
        remote = f"ON: redacted messages go to {settings.remote_url}"
    return Silence(
        at=datetime.now(UTC),
        remote=remote,
        silent=not settings.remote_enabled and all(p.verdict == "refused" for p in found),
        units=found,
        sockets=sockets(processes(settings)),
        outbound=await _outbound(settings),
    )


async def _outbound(settings: Settings) -> Outbound | None:
    try:
        database = Database(settings.resolved_database_url)
        try:
            found = await database.read(lambda records: records.health.outbound(CALL))
        finally:
            await database.aclose()
    except ApplianceError:
        return None
    # Of an address only the host: what follows may be a receiver's token.
    hosts = {urlsplit(url).hostname or "" for url in found.receivers}
    return replace(found, receivers=tuple(sorted(hosts)))

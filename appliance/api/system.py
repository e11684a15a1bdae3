"""Is it alive, can it answer, how much did it do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from litestar import Controller, Response, get
from litestar.openapi.datastructures import ResponseSpec

from appliance import __version__
from appliance.api.auth import Desk
from appliance.api.gate import UNGATED
from appliance.api.problems import documented
from appliance.domain.ports import WorkerState
from appliance.llm.interface import EngineState


@dataclass(frozen=True, slots=True)
class Health:
    """The process answers."""

    status: Literal["ok"]
    version: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a query can be answered now, and how each part is. Without an engine the articles
    answer, and without a worker answers come all the same; without space nothing can be stored."""

    status: Literal["ready", "starting", "read_only", "unavailable"]
    engine: EngineState
    database: Literal["ok", "down"]
    writable: Literal["ok", "down", "unknown"]
    migrations: Literal["ok", "behind", "unknown"]
    disk: Literal["ok", "low", "unknown"]
    worker: WorkerState
    model: str | None
    sha256: str | None
    detail: str | None


class SystemController(Controller):
    """State of the appliance."""

    tags = ("System",)

    @get("/health", opt={UNGATED: True})
    async def health(self) -> Health:
        """Alive. Looks at nothing, so it never blocks."""
        return Health("ok", __version__)

    @get(
        "/ready",
        opt={UNGATED: True},
        responses={503: ResponseSpec(Readiness, description="Not ready", generate_examples=False)},
    )
    async def ready(self, appliance: Desk) -> Response[Readiness]:
        """Ready, from what the monitor saw last: constant time, whatever the engine does."""
        seen = appliance.monitor.seen
        status: Literal["ready", "starting", "read_only", "unavailable"] = "ready"
        if not appliance.is_ready:
            status = "starting"
        elif seen.database != "ok" or seen.writable == "down":
            status = "unavailable"
        elif appliance.monitor.read_only:
            status = "read_only"
        body = Readiness(
            status=status,
            engine=seen.model.state,
            database=seen.database,
            writable=seen.writable,
            migrations=seen.migrations,
            disk=seen.disk,
            worker=seen.worker,
            model=seen.model.model,
            sha256=seen.model.sha256,
            detail=seen.model.detail,
        )
        return Response(body, status_code=200 if status == "ready" else 503)

    @get("/stats", responses=documented(401, 403))
    async def stats(self, appliance: Desk) -> dict[str, Any]:
        """Totals of everything stored, for agents and admins."""
        counts = await appliance.database.read(lambda records: records.stats.counts())
        model = appliance.monitor.seen.model
        return {**counts, "model": asdict(model)}

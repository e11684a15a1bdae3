"""Is it alive, can it answer, how much did it do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from litestar import Controller, Response, get
from litestar.openapi.datastructures import ResponseSpec

from appliance import __version__
from appliance.api.auth import Desk
from appliance.api.problems import documented
from appliance.llm.interface import EngineState


@dataclass(frozen=True, slots=True)
class Health:
    """The process answers."""

    status: Literal["ok"]
    version: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a query can be answered now. Without an engine the articles answer, so its state is
    told apart."""

    status: Literal["ready", "starting", "unavailable"]
    engine: EngineState
    database: Literal["ok", "down"]
    model: str | None
    sha256: str | None
    detail: str | None


class SystemController(Controller):
    """State of the appliance."""

    tags = ("System",)

    @get("/health")
    async def health(self) -> Health:
        """Alive. Looks at nothing, so it never blocks."""
        return Health("ok", __version__)

    @get(
        "/ready",
        responses={503: ResponseSpec(Readiness, description="Not ready", generate_examples=False)},
    )
    async def ready(self, appliance: Desk) -> Response[Readiness]:
        """Ready, from what the monitor saw last: constant time, whatever the engine does."""
        seen = appliance.monitor.seen
        status: Literal["ready", "starting", "unavailable"] = "ready"
        if not appliance.is_ready:
            status = "starting"
        elif seen.database != "ok":
            status = "unavailable"
        body = Readiness(
            status=status,
            engine=seen.model.state,
            database=seen.database,
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

"""``/metrics`` for Prometheus.

Its numbers tell how much business a desk does, which model it runs and how near it is to its
limits: nothing of a customer, but nothing for customers either. Whoever is on the machine itself
may read it, since a scraper there is the usual case and needs no secret lying around; everybody
else needs an administrator's key. A request that was forwarded is not local, whoever forwarded it.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from litestar import Controller, Request, Response, get

from appliance.api.auth import Desk, identify, is_operator
from appliance.api.gate import UNGATED
from appliance.metrics import CONTENT_TYPE

FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


class MetricsController(Controller):
    """What the appliance counts."""

    include_in_schema = False

    @get("/metrics", opt={UNGATED: True})
    async def metrics(self, request: Request[Any, Any, Any], appliance: Desk) -> Response[bytes]:
        """All metrics in Prometheus' text format."""
        if appliance.settings.metrics_access == "key" or not _local(request):
            principal = await identify(request, appliance)
            principal.require("admin")
        return Response(
            appliance.metrics.exposition(),
            media_type=CONTENT_TYPE,
            headers={"Cache-Control": "no-store"},
        )


def _local(request: Request[Any, Any, Any]) -> bool:
    if is_operator(request.scope):
        return True
    if request.client is None or any(name in request.headers for name in FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False

"""The API as its operator's socket shows it, what it refused, and its certificate."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

import httpx

from appliance.errors import ApplianceError
from appliance.operations import tls
from appliance.operations.client import RunningAppliance
from appliance.operations.doctor.finding import Finding, State, bad
from appliance.settings import Settings

EXPIRY_WARN_DAYS: Final = 30
EXPIRY_BAD_DAYS: Final = 3
METRICS_SECONDS: Final = 1.0
_LIMITED: Final = re.compile(r'^appliance_limited_total\{limit="([^"]+)"\} ([\d.e+]+)$', re.M)
_REFUSED: Final = re.compile(
    r'^appliance_http_requests_total\{.*status="(401|429)"\} ([\d.e+]+)$', re.M
)


async def api(settings: Settings) -> list[Finding]:
    """Whether it answers, and whom it turned away since it was started."""
    async with RunningAppliance.connect(settings) as running:
        if running is None:
            hint = "Start it with 'appliance up' or its unit."
            return [Finding("api", "warn", "not running", hint)]
        try:
            ready = await running.get("/ready")
        except ApplianceError as error:
            hint = "Wait a moment, then look at its log."
            return [Finding("api", "warn", f"not ready: {error.detail}", hint)]
    told = Finding("api", "ok", f"{ready['status']}, engine {ready['engine']}")
    return [told, *await _limits(settings)]


async def _limits(settings: Settings) -> list[Finding]:
    try:
        transport = httpx.AsyncHTTPTransport(uds=str(settings.api_socket))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://appliance", timeout=METRICS_SECONDS
        ) as client:
            text = (await client.get("/metrics")).text
    except httpx.HTTPError:
        return []
    counts: dict[str, float] = {name: float(number) for name, number in _LIMITED.findall(text)}
    for status, number in _REFUSED.findall(text):
        name = {"401": "without a valid key", "429": "too many of one key"}[status]
        counts[name] = counts.get(name, 0) + float(number)
    told = ", ".join(f"{name} {number:.0f}" for name, number in counts.items() if number)
    if not told:
        return [Finding("limits", "ok", "nobody was turned away since the API's start")]
    hint = "See 'limited' and 401 in the log; APPLIANCE_KEY_REQUESTS_PER_MINUTE is the limit."
    state: State = "warn" if counts.get("disk") else "ok"
    return [Finding("limits", state, f"turned away: {told}", hint)]


def certificate(settings: Settings) -> list[Finding]:
    """How long the certificate is good for."""
    try:
        server = tls.context(settings)
    except ApplianceError as error:
        return [bad("certificate", error)]
    if server is None or settings.tls_cert_file is None:
        plain = "none: the port is open to this machine only"
        if settings.allow_plain_http:
            plain = "none: a proxy speaks TLS, or the network is trusted"
        return [Finding("certificate", "ok", plain)]
    seen = tls.examine(server, settings.tls_cert_file)
    hint = "Replace the file and restart the API."
    if seen.problem is not None or seen.not_after is None:
        return [Finding("certificate", "bad", f"not valid: {seen.problem}", hint)]
    days = (seen.not_after - datetime.now(UTC)).days
    detail = f"until {seen.not_after:%Y-%m-%d}, {days} days"
    if days < EXPIRY_BAD_DAYS:
        return [Finding("certificate", "bad", detail, hint)]
    return [Finding("certificate", "warn" if days < EXPIRY_WARN_DAYS else "ok", detail, hint)]

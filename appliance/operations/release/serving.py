"""What the release in charge says of itself, over the operator's socket: the way in that is open
also while customers are kept out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx

from appliance.operations.release.services import LOOK_SECONDS, ServiceError, Services
from appliance.settings import Settings

START_SECONDS: Final = 300.0
"""Longest a start may take. A release with another embedding model encodes every article first."""
BRIEF_SECONDS: Final = 5.0
GRACE_SECONDS: Final = 2.0
"""How long a service manager may take to begin what it was ordered."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the desk's API answered."""

    status: int
    body: Any


def call(
    settings: Settings, method: str, path: str, *, seconds: float = BRIEF_SECONDS, **more: Any
) -> Answer | None:
    """Ask the API as the operator; None where nobody answers."""
    transport = httpx.HTTPTransport(uds=str(settings.api_socket))
    try:
        with httpx.Client(
            transport=transport, base_url="http://appliance/api/v1", timeout=seconds
        ) as client:
            response = client.request(method, path, **more)
            return Answer(response.status_code, response.json())
    except (httpx.HTTPError, OSError, ValueError):
        return None


def version_serving(settings: Settings) -> str | None:
    """The version that answers; None where none does."""
    answer = call(settings, "GET", "/health")
    return str(answer.body.get("version")) if answer and answer.status == 200 else None


def is_ready(settings: Settings) -> bool:
    """Whether a query can be answered now."""
    answer = call(settings, "GET", "/ready")
    return answer is not None and answer.status == 200


def wait_until_ready(
    services: Services,
    settings: Settings,
    *,
    seconds: float = START_SECONDS,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Return when a query can be answered.

    :param look: called now and then; what it raises ends the waiting.
    :raises ServiceError: it ended, or did not come up in time.
    """
    began = time.monotonic()
    while not is_ready(settings):
        look()
        waited = time.monotonic() - began
        if waited > GRACE_SECONDS and not services.is_running():
            raise ServiceError("The services ended before they were ready.", hint=_where(services))
        if waited > seconds:
            raise ServiceError(f"Not ready after {seconds:.0f} s.", hint=_where(services))
        time.sleep(LOOK_SECONDS)


def _where(services: Services) -> str:
    return f"See their log: {services.log}"

"""Requests that a full disk does not keep out, because who may do what has to stay in hand: which
they are, that they work, and that they are as limited as all others."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from appliance.api.gate import SMALL
from tests.integration.front_door import API, PASSWORD, FrontDoor, Headers, front_door
from tests.integration.test_api_contract import assert_problem
from tests.integration.test_metrics_and_state import Usage
from tests.integration.test_sign_in import hasty  # noqa: F401 - a fixture

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning"),
]

LIMIT = 16_384
NEW = "a fresh battery of words"

# What ada, who is signed in, sends, and what is answered. None: the route has no body.
ROUTES: dict[str, tuple[dict[str, str] | None, int]] = {
    "/login": ({"username": "ada", "password": PASSWORD}, 200),
    "/logout": (None, 204),
    "/account/password": ({"present": PASSWORD, "new": NEW}, 200),
    "/accounts/{username}/disable": (None, 200),
    "/accounts/{username}/password": ({"password": NEW}, 200),
}


@pytest.fixture
async def door(
    sqlite_url: str,
    tmp_path: Path,
    hasty: None,  # noqa: F811
) -> AsyncIterator[FrontDoor]:
    async with front_door(sqlite_url, tmp_path, max_body_bytes=LIMIT) as opened:
        yield opened


async def send(door: FrontDoor, who: Headers, path: str, content: Any, **more: str) -> Any:
    headers = who | {"Content-Type": "application/json"} | more
    return await door.send("POST", API + path.format(username="bob"), headers, content=content)


def body_of(path: str, size: int = 0) -> bytes:
    """As JSON, with blanks up to that many bytes."""
    body, _ = ROUTES[path]
    return (b"" if body is None else json.dumps(body).encode()).ljust(size)


async def changed(door: FrontDoor) -> list[str]:
    """What was done by anybody, but for making what the door comes with."""
    return [e.action for e in await door.audit() if not e.action.endswith(".create")]


async def test_every_small_route_is_looked_at_here(door: FrontDoor) -> None:
    """A new one has to be really small: it eats of the reserve that keeps the database alive."""
    small = {
        (method, route.path_format)
        for route in door.app.routes
        for handler in getattr(route, "route_handlers", ())
        for method in handler.http_methods
        if handler.opt.get(SMALL) and method != "OPTIONS"
    }
    assert small == {("POST", API + path) for path in ROUTES}


@pytest.mark.parametrize("path", ROUTES)
async def test_a_full_disk_does_not_keep_it_out(
    door: FrontDoor, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await door.sign_in("ada")
    reserve = door.appliance.settings.disk_reserve_mib * 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2 * reserve, 0, reserve - 1))
    await door.appliance.monitor.look()
    answer = await send(door, ada, path, body_of(path))
    assert answer.status_code == ROUTES[path][1], answer.text
    # Others that change accounts are.
    refused = await send(door, door.keys["admin"], "/accounts/{username}/enable", b"")
    assert_problem(refused, 507, "read_only")


@pytest.mark.parametrize("path", ROUTES)
async def test_a_body_up_to_the_limit_is_taken_and_none_beyond(door: FrontDoor, path: str) -> None:
    async def in_parts() -> AsyncIterator[bytes]:
        whole = body_of(path, LIMIT + 1)
        yield whole[:LIMIT]
        yield whole[LIMIT:]

    ada = await door.sign_in("ada")
    before = await changed(door)
    for keyed in ({}, {"Idempotency-Key": "k"}):
        for content in (body_of(path, LIMIT + 1), in_parts()):
            assert_problem(await send(door, ada, path, content, **keyed), 413, "too_large")
    assert await changed(door) == before
    answer = await send(door, ada, path, body_of(path, LIMIT))
    assert answer.status_code == ROUTES[path][1], answer.text

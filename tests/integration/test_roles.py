"""Every route of the application for every kind of caller, held against the one table."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from litestar import Litestar, get

from appliance.api import app as application
from appliance.api.roles import ADMIN, ANYBODY, KNOWN, ROUTES, STAFF, callers
from tests.integration.front_door import API, FrontDoor, Headers, front_door

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning"),
]

CALLERS = {
    "anonymous": "anonymous",
    "visitor": "visitor",
    "customer": "customer",
    "agent": "agent",
    "admin": "admin",
    "agent, signed in": "agent",
    "admin, signed in": "admin",
}
"""Who asks, and which column of the table that is."""


@pytest.fixture
async def door(sqlite_url: str, tmp_path: Path) -> AsyncIterator[FrontDoor]:
    # More routes than a visitor may call in a minute.
    async with front_door(sqlite_url, tmp_path, visitor_queries_per_minute=1_000) as opened:
        yield opened


def routes_of(app: Litestar) -> set[str]:
    """All there are, but for OPTIONS, which only tells the methods."""
    return {
        f"{method} {route.path_format}"
        for route in app.routes
        for handler in getattr(route, "route_handlers", ())
        for method in handler.http_methods
        if method != "OPTIONS"
    }


async def test_every_route_has_a_line_and_every_line_a_route(door: FrontDoor) -> None:
    """A new route has to say in ``api/roles.py`` who may call it."""
    assert routes_of(door.app) == set(ROUTES)
    assert all(getattr(route, "route_handlers", None) for route in door.app.routes)


@pytest.mark.parametrize("who", list(CALLERS))
async def test_every_route_lets_in_whom_the_table_names(door: FrontDoor, who: str) -> None:
    headers: Headers = {}
    if who == "visitor":
        headers = await door.visitor()
    elif who.endswith("signed in"):
        headers = await door.sign_in({"agent": "bob", "admin": "ada"}[CALLERS[who]])
    elif who != "anonymous":
        headers = door.keys[who]
    wrong = {}
    # Signing out comes last, or nobody would be signed in for the rest.
    for route in sorted(ROUTES, key=lambda route: route.endswith("/logout")):
        method, path = route.split(" ")
        target = re.sub(r"{\w+}", "nothing", path)
        answer = await door.send(method, target, headers)
        allowed = ROUTES[route]
        if allowed is ANYBODY or CALLERS[who] in allowed:
            well = answer.status_code not in (401, 403)
        elif who == "anonymous":
            well = answer.status_code == 401
        else:
            well = answer.status_code == 403 and answer.json()["code"] == "forbidden"
        if not well:
            wrong[route] = answer.status_code
    # A sign-in that no page of ours sends is refused whoever sends it.
    assert wrong.keys() <= {f"POST {API}/login"}, wrong
    if wrong:
        assert "X-Requested-With" not in headers


async def test_what_is_not_in_the_table_is_closed(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @get("/forgotten")
    async def forgotten() -> str:
        return "secret"

    monkeypatch.setattr(application, "RESOURCES", [*application.RESOURCES, forgotten])
    async with front_door(sqlite_url, tmp_path) as door:
        assert routes_of(door.app) - set(ROUTES) == {f"GET {API}/forgotten"}
        for who, headers in door.keys.items():
            answer = await door.send("GET", f"{API}/forgotten", headers)
            assert answer.status_code == 403, who
            assert "secret" not in answer.text
        assert (await door.send("GET", f"{API}/forgotten")).status_code == 401


async def test_the_body_of_a_caller_without_the_role_is_not_read(door: FrontDoor) -> None:
    bad = {"content": b'{"role": ', "headers": door.keys["agent"]}
    for path in ("/keys", "/accounts", "/accounts/ada/password"):
        answer = await door.send("POST", API + path, **bad)
        assert answer.status_code == 403, path


async def test_what_the_table_refuses_is_described(door: FrontDoor) -> None:
    paths = (await door.send("GET", "/docs/openapi.json")).json()["paths"]
    missing = [
        (method, path)
        for path, operations in paths.items()
        for method, operation in operations.items()
        if callers(method.upper(), path) is not ANYBODY
        and not {"401", "403", "429"} <= operation["responses"].keys()
    ]
    assert missing == []


async def test_roles_grow_into_one_another() -> None:
    """Whoever may do more may do what others may: nobody needs two keys."""
    assert ADMIN < STAFF < KNOWN
    assert set(ROUTES.values()) == {ANYBODY, KNOWN, STAFF, ADMIN}
    writes = {route for route in ROUTES if not route.startswith(("GET", "HEAD"))}
    assert {route for route in writes if ROUTES[route] is ANYBODY} == {f"POST {API}/login"}

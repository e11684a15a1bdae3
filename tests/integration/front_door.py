"""The application's front door in this process: keys, sessions and the table of roles, with the
desk behind it still asleep. What needs the embedding model answers 503."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from litestar import Litestar

from appliance.api.app import create_app
from appliance.bootstrap import Appliance
from appliance.knowledge.embedding import HashedEmbedder
from appliance.llm.scripted import ScriptedModel
from appliance.services.access import OPERATOR
from appliance.settings import Settings

API = "/api/v1"
PASSWORD = "correct horse battery"
PAGE = {"X-Requested-With": "appliance-staff"}

Headers = dict[str, str]


@dataclass
class FrontDoor:
    """An application and a key for each role."""

    appliance: Appliance
    app: Litestar
    client: httpx.AsyncClient
    keys: dict[str, Headers] = field(default_factory=dict)

    async def send(
        self, method: str, path: str, headers: Headers | None = None, **content: Any
    ) -> httpx.Response:
        """One request with exactly these headers: cookies of earlier answers are forgotten."""
        self.client.cookies.clear()
        return await self.client.request(method, path, headers=headers, **content)

    async def login(self, headers: Headers | None = None, **body: str) -> httpx.Response:
        """What the sign-in page sends."""
        return await self.send("POST", f"{API}/login", PAGE | (headers or {}), json=body)

    async def sign_in(self, username: str, password: str = PASSWORD) -> Headers:
        """The headers of a page on which somebody is signed in."""
        return session_of(await self.login(username=username, password=password))

    async def visitor(self) -> Headers:
        """The headers of the chat page, as a new visitor has it."""
        page = await self.send("GET", "/")
        cookie = page.headers["set-cookie"].partition(";")[0]
        return {"Cookie": cookie, "X-Requested-With": "appliance-chat"}

    async def audit(self, action: str | None = None) -> list[Any]:
        """The latest entries of the audit log, newest first."""
        read = self.appliance.database.read
        return [*await read(lambda records: records.audit.list(100, action=action))]


def session_of(answer: httpx.Response) -> Headers:
    """What a browser sends after a sign-in."""
    assert answer.status_code == 200, answer.text
    cookie = answer.headers["set-cookie"].partition(";")[0]
    return PAGE | {"Cookie": cookie, "X-CSRF-Token": answer.json()["csrf_token"]}


@asynccontextmanager
async def front_door(database_url: str, folder: Path, **settings: Any) -> AsyncIterator[FrontDoor]:
    """A door on a migrated database, with a key for each role and the accounts ada (admin) and
    bob (agent)."""
    sockets = Path(tempfile.mkdtemp(prefix="door-", dir="/tmp"))
    appliance = Appliance(
        Settings(
            data_dir=folder / "data", runtime_dir=sockets, database_url=database_url, **settings
        ),
        model=ScriptedModel(),
        embedder=HashedEmbedder(),
    )
    try:
        app = create_app(appliance)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://desk") as client:
            door = FrontDoor(appliance, app, client)
            for role in ("customer", "agent", "admin"):
                made = await appliance.access.create_key(role)
                door.keys[role] = {"Authorization": f"Bearer {made.key}"}
            await appliance.accounts.create(OPERATOR, "ada", "admin", PASSWORD, name="Ada")
            await appliance.accounts.create(OPERATOR, "bob", "agent", PASSWORD)
            yield door
    finally:
        await appliance.aclose()
        shutil.rmtree(sockets, ignore_errors=True)

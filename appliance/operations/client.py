"""The running appliance, reached through the operator's socket; and an engine for when none
runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import msgspec

from appliance.errors import ApplianceError, NotReady
from appliance.operations.engine_keeper import health
from appliance.operations.processes import Child, appliance_command
from appliance.settings import Settings

ANSWER_SECONDS = 180.0


class RunningAppliance:
    """Calls the API as the operator. ``connect`` says whether there is one."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: Settings) -> AsyncIterator[RunningAppliance | None]:
        """The running appliance, or None where nothing answers on its socket."""
        transport = httpx.AsyncHTTPTransport(uds=str(settings.api_socket))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://appliance/api/v1", timeout=ANSWER_SECONDS
        ) as client:
            try:
                await client.get("/health", timeout=2.0)
            except (httpx.HTTPError, OSError):
                yield None
                return
            yield cls(client)

    async def get(self, path: str, **parameters: Any) -> Any:
        """GET a resource.

        :raises ApplianceError: what the API answered instead.
        """
        with _translated():
            return _document(await self._client.get(path, params=parameters))

    async def post(self, path: str, body: Any) -> Any:
        """POST a document.

        :raises ApplianceError: what the API answered instead.
        """
        with _translated():
            return _document(await self._client.post(path, json=body))

    async def stream(self, path: str, body: Any) -> AsyncGenerator[tuple[str, Any], None]:
        """POST a document and yield the events of the answer: name and data.

        :raises ApplianceError: what the API answered instead.
        """
        with _translated():
            async with self._client.stream("POST", path, json=body) as response:
                if response.is_error:
                    await response.aread()
                    _document(response)
                event = ""
                async for line in response.aiter_lines():
                    if line.startswith("event:"):
                        event = line[6:].strip()
                    elif line.startswith("data:"):
                        yield event, msgspec.json.decode(line[5:])


@asynccontextmanager
async def engine_at_hand(settings: Settings) -> AsyncIterator[bool]:
    """An engine for the time of a command: the one that runs, else one started now and ended
    afterwards.

    Yields False when no engine gets well; answers then come from the articles.
    """
    if health(settings.engine_socket):
        yield await _well(settings, None)
        return
    child = Child("engine", appliance_command("engine"))
    child.start()
    try:
        yield await _well(settings, child)
    finally:
        child.terminate()
        await asyncio.to_thread(child.finish)


async def _well(settings: Settings, child: Child | None, seconds: float = 180.0) -> bool:
    for _ in range(int(seconds * 4)):
        status = (await asyncio.to_thread(health, settings.engine_socket)).get("status")
        if status in ("ok", "failed"):
            return bool(status == "ok")
        if child is not None and child.exit_status is not None:
            return False
        await asyncio.sleep(0.25)
    return False


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise NotReady(
            "The appliance stopped answering.", hint="See its log, or 'appliance doctor'."
        ) from error


def _document(response: httpx.Response) -> Any:
    if not response.is_error:
        return response.json()
    try:
        problem = response.json()
        detail = str(problem.get("detail") or problem["status"])
        hint = str(problem.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        detail, hint = f"The appliance answered {response.status_code}.", ""
    kinds: dict[int, type[ApplianceError]] = {503: NotReady}
    raise kinds.get(response.status_code, ApplianceError)(detail, hint=hint)

"""Looks at database and engine every second, so that ``/ready`` answers in constant time from what
was seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from appliance.errors import ApplianceError, StorageUnavailable
from appliance.llm.interface import ChatModel, ModelHealth
from appliance.logs import get_logger
from appliance.operations import notify
from appliance.storage.database import Database

log = get_logger()

EVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """The latest look."""

    model: ModelHealth
    database: Literal["ok", "down"]


class Monitor:
    """Keeps ``seen`` fresh while it runs, and tells the service manager that the process is well.

    :param ready: whether the process can answer; the service manager hears of it once.
    :param serves: told of every look that found a model serving.
    """

    def __init__(
        self,
        model: ChatModel,
        database: Database,
        ready: Callable[[], bool],
        serves: Callable[[ModelHealth], Awaitable[None]] | None = None,
    ) -> None:
        self._serves = serves
        self._model = model
        self._database = database
        self._ready = ready
        self._task: asyncio.Task[None] | None = None
        self.seen = Seen(ModelHealth("down"), "down")

    async def look(self) -> Seen:
        """Look now."""
        health = await self._model.health()
        database: Literal["ok", "down"] = "ok"
        try:
            await self._database.check()
        except StorageUnavailable as error:
            database = "down"
            log.warning("database_down", detail=error.detail)
        if health.state != self.seen.model.state:
            log.info("engine_state", state=health.state, model=health.model)
        self.seen = Seen(health, database)
        return self.seen

    async def look_and_tell(self) -> Seen:
        """Look now, and tell of the model that serves."""
        seen = await self.look()
        if self._serves is not None and seen.model.state == "ok" and seen.database == "ok":
            try:
                await self._serves(seen.model)
            except ApplianceError as error:
                # The next look tells again; a full disk must not look like a hung process.
                log.warning("served_model_not_kept", detail=error.detail)
        return seen

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        announced = False
        while True:
            started = time.monotonic()
            try:
                seen = await self.look_and_tell()
                # The watchdog is fed only after the database was read from this loop: a process
                # that is merely there is restarted.
                if seen.database == "ok":
                    notify.watchdog()
                if not announced and self._ready():
                    notify.ready()
                    announced = True
            except Exception as error:  # one bad look must not end all looking
                log.error("monitor_failed", error=repr(error), exc_info=True)
            await asyncio.sleep(max(0.0, EVERY_SECONDS - (time.monotonic() - started)))

"""Looks at everything a query needs, so that ``/ready`` answers in constant time from what was
seen."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar, get_args

from appliance.domain.policy import HEARTBEAT_SECONDS, WORKER_STALE_SECONDS
from appliance.domain.ports import WorkerState
from appliance.errors import ApplianceError, NotMigrated, StorageUnavailable
from appliance.llm.interface import ChatModel, EngineState, ModelHealth
from appliance.logs import get_logger
from appliance.metrics import Metrics
from appliance.operations import notify
from appliance.storage.database import Database

log = get_logger()

EVERY_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 3.0
"""How long one look may take; what answers later counts as not answering."""
RECOVERY: Final = 1.05
"""Free space, as a multiple of the reserve, from which writing goes on: at the mark itself the two
states would alternate."""

Migrations = Literal["ok", "behind", "unknown"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen:
    """The latest look. ``database`` can be read, ``writable`` was written to a moment ago,
    ``migrations`` fit this code, ``disk`` is low when the appliance is read-only."""

    model: ModelHealth
    database: Literal["ok", "down"]
    migrations: Migrations = "unknown"
    writable: Literal["ok", "down", "unknown"] = "unknown"
    disk: Literal["ok", "low", "unknown"] = "unknown"
    worker: WorkerState = "unknown"


class Monitor:
    """Keeps ``seen`` fresh while it runs, and tells the service manager that the process is well.

    :param ready: whether the process can answer; the service manager hears of it once.
    :param folder: on the disk whose free space is watched.
    :param reserve: bytes that have to stay free; with less nothing is accepted.
    :param serves: told of every look that found a model serving.
    """

    def __init__(
        self,
        model: ChatModel,
        database: Database,
        ready: Callable[[], bool],
        *,
        folder: Path | None = None,
        reserve: int = 0,
        metrics: Metrics | None = None,
        serves: Callable[[ModelHealth], Awaitable[None]] | None = None,
    ) -> None:
        self._serves = serves
        self._model = model
        self._database = database
        self._ready = ready
        self._folder = folder
        self._reserve = reserve
        self._metrics = metrics or Metrics()
        self._task: asyncio.Task[None] | None = None
        self._looks = {
            "model": _Look[Any](model.health),
            "database": _Look[Any](self._look_at_database),
            "write": _Look[Any](self._write, HEARTBEAT_SECONDS),
            "disk": _Look[Any](self._free_space),
            "worker": _Look[Any](self._look_at_worker, HEARTBEAT_SECONDS),
            "deliveries": _Look[Any](self._count_deliveries, HEARTBEAT_SECONDS),
        }
        self.seen = Seen(ModelHealth("down"), "down")

    @property
    def read_only(self) -> bool:
        """Whether nothing may be accepted that has to be stored."""
        return self.seen.disk == "low"

    async def look(self, *, due: bool = False) -> Seen:
        """Look now, at everything or at what is ``due``. Takes no longer than
        ``PATIENCE_SECONDS``, whatever hangs."""
        answers = await asyncio.gather(*(look.take(due=due) for look in self._looks.values()))
        found: dict[str, Any] = dict(zip(self._looks, answers, strict=True))
        before = self.seen
        health = found["model"] or ModelHealth("down", detail="no answer in time")
        migrations: Migrations | None = found["database"]
        seen = Seen(
            model=health,
            database="ok" if migrations == "ok" else "down",
            migrations=migrations or "unknown",
            writable="ok" if found["write"] else "down",
            disk=self._disk(found["disk"]),
            worker=found["worker"] or "unknown",
        )
        self.seen = seen
        self._tell(before, seen)
        self._measure(seen, found["disk"], found["deliveries"])
        return seen

    async def look_and_tell(self, *, due: bool = False) -> Seen:
        """Look now, and tell of the model that serves."""
        seen = await self.look(due=due)
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
        for look in self._looks.values():
            await look.end()

    # --- looks ------------------------------------------------------------------------------------

    async def _look_at_database(self) -> Migrations:
        try:
            await self._database.check()
        except NotMigrated as error:
            log.warning("database_down", detail=error.detail)
            return "behind"
        except StorageUnavailable as error:
            log.warning("database_down", detail=error.detail)
            return "unknown"
        return "ok"

    async def _write(self) -> bool:
        try:
            await self._database.write(lambda records: records.heartbeats.beat("api"))
        except ApplianceError as error:
            log.warning("database_not_writable", detail=error.detail)
            return False
        return True

    async def _free_space(self) -> int | None:
        if self._folder is None:
            return None
        try:
            # In a thread: a network file system may take its time to answer.
            return (await asyncio.to_thread(shutil.disk_usage, self._folder)).free
        except OSError as error:
            log.warning("disk_not_seen", error=error.strerror)
            return None

    async def _look_at_worker(self) -> WorkerState:
        try:
            worker = await self._database.read(lambda records: records.workers.latest())
        except ApplianceError:
            return "unknown"
        if worker is None:
            return "unknown"
        late = abs((datetime.now(UTC) - worker.seen_at).total_seconds()) > WORKER_STALE_SECONDS
        return "down" if late else "ok"

    async def _count_deliveries(self) -> Mapping[str, int]:
        try:
            counts = await self._database.read(lambda records: records.deliveries.counts())
        except ApplianceError:
            return {}
        return {str(state): count for state, count in counts.items()}

    def _disk(self, free: int | None) -> Literal["ok", "low", "unknown"]:
        if free is None:
            # A look that failed proves nothing: the state stays as it was.
            return self.seen.disk
        mark = self._reserve * (RECOVERY if self.read_only else 1.0)
        return "low" if free < mark else "ok"

    # --- what becomes of them ---------------------------------------------------------------------

    def _tell(self, before: Seen, seen: Seen) -> None:
        if seen.model.state != before.model.state:
            log.info("engine_state", state=seen.model.state, model=seen.model.model)
        if seen.disk != before.disk and "low" in (seen.disk, before.disk):
            log.warning("read_only" if seen.disk == "low" else "writable_again")
        if seen.worker != before.worker:
            log.info("worker_state", state=seen.worker)

    def _measure(self, seen: Seen, free: int | None, deliveries: Mapping[str, int] | None) -> None:
        told = self._metrics
        told.state(told.engine_state, get_args(EngineState), seen.model.state)
        for state in ("running", "waiting"):
            told.engine_requests.labels(state).set(getattr(seen.model, state) or 0)
        for part in ("database", "migrations", "writable", "disk", "worker"):
            told.up.labels(part).set(getattr(seen, part) == "ok")
        told.up.labels("engine").set(seen.model.state == "ok")
        told.read_only.set(self.read_only)
        told.disk_reserve.set(self._reserve)
        if free is not None:
            told.disk_free.set(free)
        told.deliveries_seen(deliveries or {})

    async def _watch(self) -> None:
        announced = False
        while True:
            started = time.monotonic()
            try:
                seen = await self.look_and_tell(due=True)
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


@dataclass(slots=True)
class _Look(Generic[T]):
    """One thing looked at, ``every`` so many seconds at most. A look that hangs is not begun again
    beside itself: it would use up threads until nothing else could run."""

    ask: Callable[[], Awaitable[T]]
    every: float = 0.0
    _latest: T | None = None
    _task: asyncio.Future[T] | None = None
    _next: float = field(default=0.0)

    async def take(self, *, due: bool) -> T | None:
        """What is seen, or was seen if it is not ``due`` yet; None when it does not answer in time
        or fails."""
        if self._task is None:
            if due and time.monotonic() < self._next:
                return self._latest
            self._next = time.monotonic() + self.every
            self._task = asyncio.ensure_future(self.ask())
        done, _ = await asyncio.wait({self._task}, timeout=PATIENCE_SECONDS)
        self._latest = None
        if done:
            task, self._task = self._task, None
            if task.cancelled():
                return None
            error = task.exception()
            if error is not None:
                log.error("look_failed", error=repr(error), exc_info=error)
            else:
                self._latest = task.result()
        return self._latest

    async def end(self) -> None:
        """Stop waiting for it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

"""An appliance whose processes run the way systemd's units run them: each by itself, restarted
whenever it ends."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import threading
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from sqlalchemy import text

from appliance.knowledge.importers import read_faqs
from appliance.services.access import Access
from appliance.services.knowledge import save_articles
from appliance.storage import Database, migrate
from appliance.storage.engines import Access as Purpose
from appliance.storage.engines import open_engine, parse_url
from tests.appliance_process import (
    COMMAND,
    FAQS,
    PATIENCE,
    ApplianceProcess,
    free_port,
    give_prepared,
    processes_of,
    until,
)
from tests.chaos.disks import SmallDisk

RESTART_SECONDS = 0.2
"""Pause before a process that ended is started again: shorter than the units' own, so that a test
with many kills stays short."""


class Units(ApplianceProcess):
    """As :class:`ApplianceProcess`, without ``appliance up``.

    :param names: the processes to run, in this order.
    :param disk: size of a disk of its own for what changes, in MiB; 0 for none.
    """

    def __init__(
        self,
        prepared: Path,
        *,
        environment: dict[str, str] | None = None,
        names: tuple[str, ...] = ("engine", "api"),
        disk: int = 0,
    ) -> None:
        super().__init__(None if disk else prepared, environment=environment)
        self.disk = SmallDisk(self.data_dir, disk) if disk else None
        if disk:
            self._give_large_files(prepared)
        self.names = names
        self.restarts = dict.fromkeys(names, 0)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._keeping = threading.Thread(target=self._keep, name="units")

    @property
    def database_url(self) -> str:
        """Where everything is stored."""
        named = self.environment.get("APPLIANCE_DATABASE_URL")
        return named or f"sqlite:///{self.data_dir / 'appliance.db'}"

    def fill(self) -> None:
        """Database, articles and keys, without the seconds that five commands take to start."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        migrate.upgrade(self.database_url)

        async def fill() -> None:
            database = Database(self.database_url)
            await save_articles(database, read_faqs(FAQS), replace=False)
            access = Access(database)
            for role in ("customer", "agent", "admin"):
                self.keys[role] = (await access.create_key(role)).key
            await database.aclose()

        asyncio.run(fill())

    def start(self, *, wait: bool = True, **_: Any) -> None:
        """Start every process, and keep them."""
        self.port = free_port()
        self.environment["APPLIANCE_PORT"] = str(self.port)
        for name in self.names:
            self._launch(name)
        self._keeping.start()
        if wait:
            self.wait_ready()

    def wait_ready(self, engine: str = "ok") -> dict[str, Any]:
        """Wait until queries can be answered and the engine is in that state."""
        seen: list[Any] = [None]

        def ready() -> bool:
            seen[0] = status, body = self.readiness()
            return status == 200 and body["engine"] == engine

        try:
            until(ready, f"ready with engine {engine}")
        except AssertionError as error:
            raise AssertionError(f"{error}\nlast: {seen[0]}\n{self.tail()}") from None
        body: dict[str, Any] = seen[0][1]
        return body

    def serving(self) -> None:
        """Wait until queries can be answered, whatever the engine does."""
        try:
            until(lambda: self.status("/ready") == 200, "ready to answer")
        except AssertionError as error:
            raise AssertionError(f"{error}\nlast: {self.readiness()}\n{self.tail()}") from None

    def status(self, path: str) -> int:
        """What a GET without a key is answered with; 0 where nobody listens."""
        # Asked thousands of times beside a busy desk: httpx would spend its time on certificates.
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", f"/api/v1{path}")
            return connection.getresponse().status
        except (OSError, HTTPException):
            return 0
        finally:
            connection.close()

    def pid(self, name: str) -> int:
        """The process id of a unit."""
        return self._running[name].pid

    def pids(self, name: str) -> list[int]:
        """The process of a unit and, of the engine, the child that holds the weights."""
        children = self.processes_with("appliance.llm.engine") if name == "engine" else []
        return [self.pid(name), *children]

    def stop(self) -> None:
        """SIGTERM to every process; each ends well."""
        self._end()
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        ended = {name: process.wait(PATIENCE) for name, process in self._running.items()}
        assert set(ended.values()) <= {0}, f"{ended}\n{self.tail()}"
        assert processes_of(self.data_dir) == {}

    def clean(self) -> None:
        """End it whatever it is doing, and remove what it left."""
        self._end()
        for process in self._running.values():
            process.kill()
            process.wait()
        if self.disk is not None:
            self.disk.remove()
        super().clean()

    def tail(self, size: int = 20_000) -> str:
        """The end of the log."""
        return self.log.read_bytes()[-size:].decode(errors="replace")

    def table(self, statement: str, **values: Any) -> list[Any]:
        """What either kind of database holds, read past the appliance."""
        engine = open_engine(parse_url(self.database_url), Purpose.READ)
        try:
            with engine.begin() as connection:
                return list(connection.execute(text(statement), values))
        finally:
            engine.dispose()

    def _give_large_files(self, prepared: Path) -> None:
        """Weights lie elsewhere, as on a server with a large disk for them."""
        given = self.folder / "given"
        give_prepared(prepared, given)
        for name in ("weights", "embeddings"):
            (self.data_dir / name).symlink_to(given / name)
        for name in ("heads", "index"):
            shutil.copytree(given / name, self.data_dir / name)

    def _launch(self, name: str) -> None:
        with self.log.open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*COMMAND, name],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _keep(self) -> None:
        while not self._over.wait(RESTART_SECONDS):
            for name, process in list(self._running.items()):
                if process.poll() is not None and not self._over.is_set():
                    self.restarts[name] += 1
                    self._launch(name)

    def _end(self) -> None:
        self._over.set()
        if self._keeping.is_alive():
            self._keeping.join()

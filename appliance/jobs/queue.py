"""The queue: Huey on a file, on Redis or Valkey, or on PostgreSQL. It carries hints only.

Whatever is wrong with it must not stop deliveries: taking out reports trouble once and goes on
trying. Putting in is :mod:`appliance.jobs.waking`'s.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
from huey.api import Huey
from huey.exceptions import ConfigurationError
from huey.registry import Message
from huey.serializer import Serializer
from huey.storage import PostgresStorage, RedisStorage, SqliteStorage

from appliance.errors import SettingsError
from appliance.logs import get_logger
from appliance.settings import Settings

log = get_logger()

NAME = "appliance"
FILE = "queue.db"
SERVER_SECONDS = 5.0
"""How long a server may take to answer."""
HINTS_MAX = 10
"""Hints that wait; one is enough, and nobody may be there to take them."""


class Queue(Huey):  # type: ignore[misc]
    """Huey with hints for tasks. Results are not kept: nobody waits for one."""

    def __init__(self, settings: Settings) -> None:
        storage_class, options = _storage(settings)
        self._well = True
        super().__init__(
            NAME,
            results=False,
            serializer=JsonSerializer(),
            storage_class=storage_class,
            **options,
        )

    def close(self) -> None:
        """Close this thread's connections."""
        self.storage.close()
        pool = getattr(self.storage, "pool", None)
        if pool is not None:
            pool.disconnect()

    def dequeue(self) -> Any:
        """The next task, or None: also while the queue is out of reach."""
        try:
            task = super().dequeue()
        except Exception as error:  # every storage has its own
            if self._well:
                log.warning("queue_unreachable", error=type(error).__name__)
            self._well = False
            return None
        if not self._well:
            log.info("queue_reachable")
        self._well = True
        return task


class JsonSerializer(Serializer):  # type: ignore[misc]
    """Messages as JSON. Huey's own way is pickle: whoever could write into the queue would run code
    in the worker."""

    def _serialize(self, data: Message) -> bytes:
        return msgspec.json.encode(list(data))

    def _deserialize(self, data: bytes) -> Message:
        return Message(*msgspec.json.decode(bytes(data), type=list[Any]))


class FileStorage(SqliteStorage):  # type: ignore[misc]
    """SQLite in a file of its own. A file that was removed meanwhile is made anew: else those who
    have it open would go on talking past those who open it later."""

    _conn: sqlite3.Connection | None

    def __init__(self, name: str, **options: Any) -> None:
        self._opened: tuple[int, int] | None = None
        super().__init__(name, **options)

    @property
    def conn(self) -> sqlite3.Connection:
        """The connection; Huey asks for it with its lock held."""
        if self._conn is not None and self._opened != self._present():
            self._conn.close()
            self._conn = None
        if self._conn is None:
            connection = self._create_connection()
            for statement in self.ddl:
                connection.execute(statement)
            self._conn, self._opened = connection, self._present()
        return self._conn

    def _present(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.filename)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


def _storage(settings: Settings) -> tuple[type[Any], dict[str, Any]]:
    url = settings.queue_url
    scheme, _, rest = url.partition("://")
    try:
        if not url:
            return FileStorage, _file(settings.data_dir / FILE)
        if scheme == "postgresql":
            import psycopg  # noqa: F401 - its absence is told here

            return PostgresStorage, {"dsn": url, "connect_timeout": int(SERVER_SECONDS)}
        import redis

        # Valkey speaks Redis' protocol, and its client is Redis'.
        known = scheme.replace("valkeys", "rediss").replace("valkey", "redis")
        pool = redis.ConnectionPool.from_url(
            f"{known}://{rest}",
            socket_timeout=SERVER_SECONDS,
            socket_connect_timeout=SERVER_SECONDS,
        )
        return RedisStorage, {"connection_pool": pool}
    except ImportError as error:
        extra = "postgresql" if scheme == "postgresql" else "redis"
        raise SettingsError(
            f"queue_url names a {scheme} server, whose driver is not installed.",
            hint=f"Install smartsupport-appliance[{extra}].",
        ) from error
    except (ConfigurationError, ValueError) as error:
        raise SettingsError(f"queue_url cannot be read: {error}") from error


def _file(path: Path) -> dict[str, Any]:
    # Private before anything is in it; SQLite gives its companions the same mode.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    return {"filename": str(path), "fsync": True}

"""The engine as a process: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from appliance.errors import SettingsError
from appliance.llm.catalog import Catalog, Entry
from appliance.llm.engine.scheduler import Loaded, Scheduler
from appliance.llm.engine.server import create_app
from appliance.logs import configure_logs, get_logger
from appliance.settings import SOCKET_PATH_MAX, Settings

DRAIN_SECONDS: Final = 5.0
"""How long a running answer may take after SIGTERM."""
STALL_SECONDS: Final = 10.0
"""How long a client may leave what was sent unread, at least; at most twice as long."""
_LEAVE_SECONDS: Final = 2.0

log = get_logger()


def serve(settings: Settings, model_name: str, socket_path: Path) -> None:
    """Serve a model on a Unix socket that only this user can open, until SIGTERM or SIGINT.

    The socket answers at once, ``/health`` says "loading" meanwhile. Must run in a process's main
    thread. After a signal new requests are refused, running ones get ``DRAIN_SECONDS``, and the
    call returns.

    :raises NotFound: the catalog has no such model.
    :raises SettingsError: the socket cannot be made there.
    """
    configure_logs(settings.log_level, process="engine")
    entry = Catalog.load().entry(model_name)
    scheduler = Scheduler(
        partial(_load, settings, entry), model=entry.name, waiting=settings.engine_queue
    )
    app = create_app(
        scheduler,
        model=entry.name,
        max_body=settings.max_body_bytes,
        timeout=settings.engine_timeout,
    )
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=round(DRAIN_SECONDS + _LEAVE_SECONDS),
    )
    listener, inode = _listen(socket_path)
    # uvicorn raises the signal again once it has stopped; asked to stop and stopped is a success.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    scheduler.start()
    log.info("engine listening", model=entry.name, socket=str(socket_path))
    try:
        _Server(config, scheduler).run(sockets=[listener])
    finally:
        _unlink(socket_path, inode)
    scheduler.stop()
    if not scheduler.join(_LEAVE_SECONDS):
        # Inside the library, loading or quantizing: its threads would outlive the interpreter.
        log.info("engine stopped while busy")
        os._exit(0)
    log.info("engine stopped")


class PatientProtocol(H11Protocol):
    """A connection that is cut when its client has read nothing for ``STALL_SECONDS``.

    A client that stops reading without leaving would otherwise hold its connection for ever.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look after it."""
        super().connection_made(transport)
        self._unread = 0
        self._look = self.loop.call_later(STALL_SECONDS, self._look_after)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking."""
        self._look.cancel()
        super().connection_lost(exc)

    def _look_after(self) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread and unread >= self._unread > 0:
            log.info("client cut off", unread=unread)
            self.transport.abort()
            return
        self._unread = unread
        self._look = self.loop.call_later(STALL_SECONDS, self._look_after)


class _Server(uvicorn.Server):
    """uvicorn that tells the scheduler when it is asked to stop."""

    def __init__(self, config: uvicorn.Config, scheduler: Scheduler) -> None:
        super().__init__(config)
        self._scheduler = scheduler

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._scheduler.drain()
        asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._scheduler.stop)
        await super().shutdown(sockets)


def _load(settings: Settings, entry: Entry, report: Callable[[str], None]) -> Loaded:
    # Imported by the thread that loads: the socket answers before the libraries are in memory.
    from appliance.llm.engine.loading import load

    return load(settings, entry, report)


def _listen(path: Path) -> tuple[socket.socket, int]:
    """A listening socket with mode 0600 and its inode.

    Made here because uvicorn would open it to everybody (0666).
    """
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise SettingsError(f"{path} is too long for a socket path.")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        _clear_stale(path)
        listener.bind(str(path))
        listener.listen()
        return listener, path.stat().st_ino
    except OSError as error:
        listener.close()
        raise SettingsError(f"No socket can be made at {path}: {error.strerror}.") from error
    finally:
        os.umask(before)


def _clear_stale(path: Path) -> None:
    """Remove the socket of an engine that was killed; leave one that answers alone."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink()


def _unlink(path: Path, inode: int) -> None:
    try:
        if path.stat().st_ino == inode:
            path.unlink()
    except OSError:
        log.debug("socket was gone already", socket=str(path))

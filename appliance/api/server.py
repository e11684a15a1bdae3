"""Runs the application: one uvicorn server on the LAN's port, one on the operator's socket, one
event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import ssl
from collections.abc import Generator
from typing import Any

import uvicorn

from appliance.api.app import create_app
from appliance.api.auth import OperatorSocket
from appliance.api.connections import DeskProtocol
from appliance.bootstrap import Appliance
from appliance.errors import Conflict, SettingsError
from appliance.logs import get_logger
from appliance.operations import notify
from appliance.operations.locks import hold_lock
from appliance.operations.release import door
from appliance.operations.tls import context, examine, require_safe_bind

log = get_logger()

DRAIN_SECONDS = 10
"""How long requests under way may take after the order to stop."""
KEEP_ALIVE_SECONDS = 30
BACKLOG = 512
CONNECTIONS_MAX = 768
"""Connections of the LAN's port; below the 1,024 files that a process may have open by default."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: two servers would fight over it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(appliance: Appliance) -> None:
    """Serve until SIGTERM or SIGINT.

    :raises Conflict: another API process serves this data folder.
    :raises SettingsError: the address or the socket cannot be bound, or must not without TLS.
    :raises StorageUnavailable: the database is not usable.
    """
    settings = appliance.settings
    with hold_lock(settings.data_dir / "api.lock") as free:
        if not free:
            raise Conflict(
                f"The API of {settings.data_dir} is running already.",
                hint="Stop it, or choose another APPLIANCE_DATA_DIR and APPLIANCE_PORT.",
            )
        await _serve(appliance)


async def _serve(appliance: Appliance) -> None:
    settings = appliance.settings
    require_safe_bind(settings)
    tls = context(settings)
    if tls is not None and settings.tls_cert_file is not None:
        certificate = examine(tls, settings.tls_cert_file)
        if certificate.problem is not None:
            # Browsers will complain; a desk that does not start would help nobody.
            log.error("certificate_not_valid", problem=certificate.problem)
    lan = bind(settings.host, settings.port)
    operator = _bind_operator(str(settings.api_socket))
    # Before any server listens for requests, so that a wrong database ends the process with its
    # reason.
    await appliance.database.check()
    app = create_app(appliance)
    # The operator's server begins first and ends last, and the application with it: while a release
    # is on trial it is the only way in.
    inside = _Server(_config(OperatorSocket(app), lifespan="on"))
    outside = _Server(_config(app, lifespan="off", tls=tls, limit_concurrency=CONNECTIONS_MAX))

    def stop() -> None:
        notify.stopping()
        outside.should_exit = True

    async def serve_customers() -> None:
        try:
            while not inside.started and not outside.should_exit:
                await asyncio.sleep(door.LOOK_SECONDS)
            if await door.wait_until_open(gives_up=lambda: outside.should_exit):
                host, port = lan.getsockname()[:2]
                log.info("listening", host=host, port=port, tls=tls is not None)
                await outside.serve([lan])
        finally:
            inside.should_exit = True

    async def settle() -> None:
        """What is loaded once the appliance is ready stays to the end. A collector that walks all
        of it holds up the event loop for .1 s and more, the more often the more is asked."""
        while not appliance.is_ready and not inside.should_exit:
            await asyncio.sleep(door.LOOK_SECONDS)
        gc.collect()
        gc.freeze()

    async def serve_operator() -> None:
        try:
            await inside.serve([operator])
        finally:
            outside.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await asyncio.gather(serve_customers(), serve_operator(), settle())
    finally:
        lan.close()
        settings.api_socket.unlink(missing_ok=True)
    if appliance.failure is not None:
        raise appliance.failure


def bind(host: str, port: int) -> socket.socket:
    """A listening-to-be TCP socket.

    :raises SettingsError: the address is not of this machine, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise SettingsError(
            f"{host} port {port} cannot be used: {error.strerror}.",
            hint="Set APPLIANCE_HOST and APPLIANCE_PORT to a free port of this machine.",
        ) from error
    return listener


def _bind_operator(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Nobody but this user may connect: whoever can is the administrator.
    before = os.umask(0o177)
    try:
        listener.bind(path)
    except OSError as error:
        raise SettingsError(f"The socket {path} cannot be made: {error.strerror}.") from error
    finally:
        os.umask(before)
    return listener


def _config(
    app: Any,
    *,
    lifespan: Any,
    tls: ssl.SSLContext | None = None,
    limit_concurrency: int | None = None,
) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ssl_context_factory=None if tls is None else lambda *_: tls,
        lifespan=lifespan,
        limit_concurrency=limit_concurrency,
        http=DeskProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        # Client addresses come from the connection: a header that anybody can send decides nothing.
        proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        backlog=BACKLOG,
        h11_max_incomplete_event_size=64 * 1024,
    )

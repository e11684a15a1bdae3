"""Many customers at once, at a small size: nothing fails but what is told to wait. The figures are
``appliance bench --clients 200``."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from appliance.api import connections
from appliance.api.connections import DeskProtocol
from appliance.cli.bench_load import measure

pytestmark = [pytest.mark.loopback, pytest.mark.anyio]


@pytest.mark.parametrize(
    ("clients", "seconds"),
    [
        pytest.param(20, 4.0, id="small"),
        pytest.param(200, 60.0, id="full", marks=[pytest.mark.full, pytest.mark.timeout(900)]),
    ],
)
async def test_nothing_fails_under_load(clients: int, seconds: float) -> None:
    card = await measure(clients, seconds, hashed=clients == 20)
    assert card["answered"] >= clients
    assert card["other_errors"] == {}
    assert card["told_to_wait_without_retry_after"] == 0
    assert card["health_probes"] > 0
    if clients == 200:
        # Memory that grows with every question would show here, at some thousand of them.
        assert card["memory_mib"]["end"] < 1.2 * card["memory_mib"]["warm"]


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n"],
)
async def test_headers_that_do_not_end_are_not_waited_for(
    sent: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import uvicorn

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.2)
    config = uvicorn.Config(app, http=DeskProtocol, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    try:
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(sent)
        await writer.drain()
        async with asyncio.timeout(10):
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(1_000_000)
        writer.close()
    finally:
        server.should_exit = True
        await server.shutdown(sockets=[listener])

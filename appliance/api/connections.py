"""Connections that keep no place for nothing: a request's headers have to arrive in time, and what
is answered has to be read."""

from __future__ import annotations

import asyncio
from typing import Final

from appliance.llm.engine.process import PatientProtocol
from appliance.logs import get_logger

log = get_logger()

HEADER_SECONDS: Final = 20.0
"""From a request's first byte to the end of its headers; a new connection's, too."""


class DeskProtocol(PatientProtocol):
    """Cuts off a client that sends a request's headers for ever.

    A body has its own limit (``api/gate.py``), and between requests the keep-alive time holds.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for headers."""
        super().connection_made(transport)
        self._headers: asyncio.TimerHandle | None = None
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._settle()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; headers that are not whole by then are waited for, no longer than that
        from their first byte."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._settle()
        elif self._headers is None:
            self._expect()

    def _expect(self) -> None:
        self._headers = self.loop.call_later(HEADER_SECONDS, self._cut_off)

    def _settle(self) -> None:
        if self._headers is not None:
            self._headers.cancel()
            self._headers = None

    def _cut_off(self) -> None:
        log.info("client_too_slow", seconds=HEADER_SECONDS)
        self.transport.abort()

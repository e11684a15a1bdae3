"""What systemd wants to hear (sd_notify): ready, stopping, still well. Silent where nobody
listens."""

from __future__ import annotations

import socket

from appliance.settings import notify_socket


def ready() -> None:
    """The service can do its work."""
    _send("READY=1")


def stopping() -> None:
    """The service is winding down."""
    _send("STOPPING=1")


def watchdog() -> None:
    """The service is well."""
    _send("WATCHDOG=1")


def _send(message: str) -> None:
    address = notify_socket()
    if address is None:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            # A service manager too busy to read must not stop the event loop.
            connection.setblocking(False)
            connection.connect(address)
            connection.sendall(message.encode())
    except OSError:
        return  # a service manager that went away must not take the service with it

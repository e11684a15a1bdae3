"""What systemd hears on its datagram socket."""

from __future__ import annotations

import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.operations import notify

MESSAGES: list[tuple[Callable[[], None], bytes]] = [
    (notify.ready, b"READY=1"),
    (notify.stopping, b"STOPPING=1"),
    (notify.watchdog, b"WATCHDOG=1"),
]


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(5)
        yield receiver


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ssa-", dir="/tmp") as path:
        yield Path(path)


@pytest.mark.parametrize(("say", "wanted"), MESSAGES)
def test_each_state_is_one_datagram(
    say: Callable[[], None],
    wanted: bytes,
    manager: socket.socket,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manager.bind(str(folder / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
    say()
    assert manager.recv(100) == wanted
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_an_abstract_socket_is_reached_by_its_at_sign(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"ssa-test-{secrets.token_hex(8)}"
    manager.bind(f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    notify.ready()
    assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize(("say", "_wanted"), MESSAGES)
def test_without_a_service_manager_nothing_is_said(
    say: Callable[[], None], _wanted: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    say()
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    say()


@pytest.mark.parametrize("kind", ["gone", "nothing there", "a file", "too long", "a stream"])
def test_a_service_manager_that_went_away_takes_nobody_with_it(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        if kind == "gone":
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as closed:
                closed.bind(str(path))
        elif kind == "a file":
            path.write_text("no socket")
        elif kind == "too long":
            path = folder / ("x" * 200)
        elif kind == "a stream":
            stream.bind(str(path))
            stream.listen()
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notify.ready()
        notify.watchdog()
        notify.stopping()


@pytest.mark.timeout(3)
def test_a_service_manager_that_does_not_listen_blocks_nobody(
    manager: socket.socket, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog is fed from the event loop: a full queue must not stop the desk."""
    manager.bind(str(folder / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
    for _ in range(2_000):
        notify.watchdog()

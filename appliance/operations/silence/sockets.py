"""Who listens and who is connected, from the kernel's own lists."""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from appliance.operations.doctor.inventory import PROC, Process

LISTS: Final = ("tcp", "tcp6", "udp", "udp6")
_LISTEN: Final = "0A"
_INODE: Final = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Socket:
    """A socket of one of our processes. ``reach`` is how far it goes: to this machine only, or to
    others; of one that listens that is who can connect."""

    process: str
    pid: int
    kind: str
    state: Literal["listening", "connected", "unconnected"]
    local: str
    remote: str
    reach: Literal["this machine", "other machines"]


def sockets(processes: list[Process]) -> list[Socket]:
    """Internet sockets of these processes, each in its own network."""
    found = []
    for process in processes:
        ours = _inodes(PROC / str(process.pid))
        for kind in LISTS:
            for inode, state, local, remote in _listed(PROC / str(process.pid) / "net" / kind):
                if inode in ours:
                    found.append(_socket(process, kind, state, local, remote))
    return found


def _socket(process: Process, kind: str, code: str, local: str, remote: str) -> Socket:
    here, there = _address(local), _address(remote)
    connected = there[1] != 0
    state: Literal["listening", "connected", "unconnected"] = "unconnected"
    if code == _LISTEN:
        state = "listening"
    elif connected:
        state = "connected"
    asked = there[0] if connected else here[0]
    mapped = getattr(asked, "ipv4_mapped", None) or asked
    return Socket(
        process.name,
        process.pid,
        kind,
        state,
        _told(here),
        _told(there) if connected else "",
        "this machine" if mapped.is_loopback else "other machines",
    )


def _inodes(folder: Path) -> frozenset[str]:
    found = set()
    try:
        for link in (folder / "fd").iterdir():
            try:
                match = _INODE.fullmatch(str(link.readlink()))
            except OSError:
                continue
            if match:
                found.add(match[1])
    except OSError:
        return frozenset()
    return frozenset(found)


def _listed(file: Path) -> Iterator[tuple[str, str, str, str]]:
    """Inode, state, local and remote address of each line."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return
    for line in lines:
        words = line.split()
        yield words[9], words[3], words[1], words[2]


Address = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]


def _address(text: str) -> Address:
    """The kernel writes each 32-bit word of an address in the machine's own order."""
    digits, _, port = text.partition(":")
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    return ipaddress.ip_address(struct.pack(f"={len(words)}I", *words)), int(port, 16)


def _told(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"

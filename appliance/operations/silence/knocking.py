"""Tries to leave: what a process of ours could do if it wanted to.

The addresses are set aside for documentation (RFC 5737, RFC 3849): nobody has them, and an attempt
that gets out harms nobody. What the kernel itself refuses at once counts as refused; silence does
not, for a packet may have left.
"""

from __future__ import annotations

import errno
import ipaddress
import select
import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Verdict = Literal["refused", "unproven", "LEAK"]

ADDRESSES: Final = ("192.0.2.1", "198.51.100.1", "2001:db8::1")
TCP_PORT: Final = 443
DNS_PORT: Final = 53
PATIENCE: Final = 1.5
"""Seconds that an attempt may take."""
RESOLVERS: Final = Path("/etc/resolv.conf")

QUESTION: Final = b"\x53\x53\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07invalid\x00\x00\x01\x00\x01"
"""A DNS query for ``invalid.``, which no name server asks another one for (RFC 6761)."""

REFUSALS: Final = frozenset(
    {
        errno.EPERM,
        errno.EACCES,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EAFNOSUPPORT,
        errno.EADDRNOTAVAIL,
    }
)
"""What this machine's kernel says of its own accord when nothing may leave."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try and what came of it."""

    way: Literal["tcp", "udp", "dns"]
    address: str
    verdict: Verdict
    found: str


def knock(addresses: Iterable[str] = ADDRESSES, resolvers: Path = RESOLVERS) -> list[Attempt]:
    """Every attempt, side by side."""
    places = list(addresses)
    with ThreadPoolExecutor(16) as threads:
        udp = list(threads.map(_udp, places))
        tcp = list(threads.map(_tcp, places))
        dns = list(threads.map(_dns, name_servers(resolvers)))
    filtered = {attempt.address for attempt in udp if attempt.verdict == "refused"}
    # A packet filter of the unit's control group drops TCP without a word and tells UDP: it looks
    # at the address alone.
    tcp = [
        Attempt(a.way, a.address, "refused", "silent; the filter told UDP")
        if a.verdict == "unproven" and a.address in filtered
        else a
        for a in tcp
    ]
    return [*tcp, *udp, *dns]


def name_servers(file: Path) -> list[str]:
    """Addresses in resolv.conf; none where there is no such file."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [w[1] for w in words if len(w) > 1 and w[0] == "nameserver" and _is_address(w[1])]


def _tcp(address: str) -> Attempt:
    try:
        with socket.socket(_family(address), socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            try:
                connection.connect((address, TCP_PORT))
            except BlockingIOError:
                return _answered_tcp(connection, address)
    except OSError as error:
        return _told("tcp", address, error)
    return Attempt("tcp", address, "LEAK", "connected")


def _answered_tcp(connection: socket.socket, address: str) -> Attempt:
    if not select.select([], [connection], [], PATIENCE)[1]:
        return Attempt("tcp", address, "unproven", "silence")
    code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code == 0:
        return Attempt("tcp", address, "LEAK", "connected")
    # It began, so a packet was on its way; who ended it was somebody else, but for a neighbour
    # that nobody could find.
    verdict: Verdict = "unproven" if code == errno.EHOSTUNREACH else "LEAK"
    return Attempt("tcp", address, verdict, f"answered with {errno.errorcode.get(code, code)}")


def _udp(address: str) -> Attempt:
    return _asked("udp", address, "LEAK")


def _dns(address: str) -> Attempt:
    """A name server's answer. One of this house may ask others, which cannot be seen from here."""
    home = ipaddress.ip_address(address.partition("%")[0])
    return _asked("dns", address, "unproven" if home.is_private else "LEAK")


def _asked(way: Literal["udp", "dns"], address: str, answered: Verdict) -> Attempt:
    try:
        with socket.socket(_family(address), socket.SOCK_DGRAM) as connection:
            connection.connect((address, DNS_PORT))
            connection.send(QUESTION)
            return _answered_udp(connection, way, address, answered)
    except OSError as error:
        return _told(way, address, error)


def _answered_udp(
    connection: socket.socket, way: Literal["udp", "dns"], address: str, answered: Verdict
) -> Attempt:
    connection.settimeout(PATIENCE)
    began = time.monotonic()
    try:
        connection.recv(512)
    except TimeoutError:
        return Attempt(way, address, "unproven", f"sent; silence for {PATIENCE} s")
    except ConnectionRefusedError:
        return Attempt(way, address, answered, "answered: nothing listens there")
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, str(error))
        return Attempt(way, address, "unproven", f"sent; then {name}")
    seconds = time.monotonic() - began
    what = "answered" if answered == "LEAK" else "a name server of this house answered"
    return Attempt(way, address, answered, f"{what} after {seconds:.2f} s")


def _told(way: Literal["tcp", "udp", "dns"], address: str, error: OSError) -> Attempt:
    name = errno.errorcode.get(error.errno or 0, str(error))
    return Attempt(way, address, "refused" if error.errno in REFUSALS else "unproven", name)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True

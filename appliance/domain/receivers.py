"""Where webhooks may go: nowhere, but to what whoever runs this machine has listed.

Receivers stand on a LAN, so "no private addresses" would break the product and "private addresses"
would open everything. Saving, testing and delivering all ask ``ReceiverGuard.admit``, and whoever
connects uses the addresses that it checked: a name that means something else a moment later gains
nothing.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.errors import ReceiverRefused, SettingsError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""All addresses of a name now, none if it has none; the number is the port."""

URL_MAX_CHARS: Final = 2_048
PORTS: Final = {"https": 443, "http": 80}
"""Schemes, and the ports that an entry without one allows."""

ANY_PORT: Final = "*"

# One strict form, so that no second parser can read another host in it: no user name, fragment,
# backslash, blank, percent sign in the host, nor letters beyond ASCII (names are written xn--).
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>(?:/[a-z0-9._~!$&'()*+,;=:@%/-]*)?(?:\?[a-z0-9._~!$&'()*+,;=:@%/?-]*)?)",
    re.ASCII | re.IGNORECASE,
)
_NAME: Final = re.compile(r"(?=.{1,253}$)(?:(?!-)[a-z0-9_-]{1,63}(?<!-)\.)*(?!-)[a-z0-9_-]{1,63}")
# A last label like this makes C libraries and browsers read a number: 127.1, 0x7f.1, 2130706433.
_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_ENTRY: Final = re.compile(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<other>[^\[\]:]+)):(?P<port>[0-9]+|\*)")

_LOOPBACK: Final[tuple[Network, ...]] = (
    ipaddress.ip_network("127.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
)
_NEVER: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "169.254.0.0/16",  # link-local, and where clouds keep credentials
        "192.0.0.0/24",  # protocol assignments, metadata among them
        "100.100.100.200/32",  # metadata
        "168.63.129.16/32",  # metadata
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "::/96",  # unspecified, and IPv4 in disguise; ::1 is looked at before
        "::ffff:0:0/96",  # IPv4 in disguise, as are the next five
        "::ffff:0:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/32",
        "2002::/16",
        "fd00:ec2::254/128",  # metadata
        "fd20:ce::254/128",  # metadata
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local of old
        "ff00::/8",  # multicast
    )
)
"""What is no receiver whatever the list says. IPv4 in disguise has its own plain form to be listed
and checked by."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart. ``host`` is a name in lower case or an address in its canonical form,
    without brackets; ``target`` is path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def address(self) -> Address | None:
        """The host, where it is an address."""
        return _address(self.host)

    @property
    def authority(self) -> str:
        """Host and port as people and the Host header write them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Receiver:
    """A target that is admitted, and the checked addresses to connect to, in the order that the
    name service gave."""

    target: Target
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of the list: a network or a name, and the port, None for any."""

    network: Network | None
    name: str | None
    ports: frozenset[int] | None

    def fits(self, port: int) -> bool:
        return self.ports is None or port in self.ports


class AllowList:
    """What may be a receiver. An empty list, the default, admits nothing.

    ``10.2.0.0/16`` and ``10.2.3.4`` admit addresses, by whatever name. ``crm.example.com`` admits
    that name while all its addresses are public ones: a name alone must not open the LAN to
    whoever answers for it, so private addresses need their network. Loopback is opened by an entry
    of its own only, not by 0.0.0.0/0. ``:8443`` behind any of them names a port, ``:*`` all of
    them; without it they are 80 and 443. An IPv6 network with a port stands in brackets.
    """

    def __init__(self, entries: Iterable[_Entry] = ()) -> None:
        self._entries = tuple(entries)

    @classmethod
    def parse(cls, entries: Iterable[str]) -> AllowList:
        """:raises SettingsError: one of them is no entry, or can never be a receiver."""
        return cls(_entry(text.strip().lower()) for text in entries)

    def check_port(self, target: Target) -> None:
        """Refuse what cannot be admitted whatever its addresses, so that the name service is not
        asked in vain.

        :raises ReceiverRefused:
        """
        if not self._entries:
            raise ReceiverRefused("No receiver of webhooks is allowed.")
        if not any(entry.fits(target.port) for entry in self._entries):
            raise ReceiverRefused(
                f"Port {target.port} is not allowed for any receiver.",
                hint=f"List it with its port in APPLIANCE_WEBHOOK_ALLOW: {_told(target)}.",
            )

    def admit(self, target: Target, addresses: Sequence[str]) -> Receiver:
        """The receiver, if every address may be one: a name with one address too many is refused
        whole.

        :raises ReceiverRefused:
        """
        self.check_port(target)
        if not addresses:
            raise ReceiverRefused(
                f"{target.host} does not resolve.", hint="Check the name and the name service."
            )
        named = any(
            entry.name == target.host and entry.fits(target.port) for entry in self._entries
        )
        for text in addresses:
            address = _address(text)
            if address is None or self._never(address):
                raise ReceiverRefused(
                    f"{target.host} has the address {text}, which never is a receiver.",
                    hint="Name the receiver by its ordinary address.",
                )
            if not (self._listed(address, target.port) or (named and address.is_global)):
                raise ReceiverRefused(
                    f"{target.host} has the address {text}, which is not allowed on port "
                    f"{target.port}.",
                    hint=f"List it in APPLIANCE_WEBHOOK_ALLOW: {_told(target, address)}.",
                )
        return Receiver(target, tuple(addresses))

    def _listed(self, address: Address, port: int) -> bool:
        loopback = _within(address, _LOOPBACK)
        return any(
            entry.network is not None
            and address in entry.network
            and entry.fits(port)
            and (not loopback or _inside(entry.network, _LOOPBACK))
            for entry in self._entries
        )

    @staticmethod
    def _never(address: Address) -> bool:
        return _within(address, _NEVER) and not _within(address, _LOOPBACK)


class ReceiverGuard:
    """The one way from a URL to something that may be connected to."""

    def __init__(self, allow: AllowList, resolve: Resolve) -> None:
        self._allow = allow
        self._resolve = resolve

    async def admit(self, url: str) -> Receiver:
        """:raises ReceiverRefused: webhooks may not go there, or nothing is there."""
        target = parse_url(url)
        self._allow.check_port(target)
        if target.address is not None:
            return self._allow.admit(target, (target.host,))
        return self._allow.admit(target, await self._resolve(target.host, target.port))


def parse_url(url: str) -> Target:
    """:raises ReceiverRefused: it is not a plain web address."""
    found = _URL.fullmatch(url) if len(url) <= URL_MAX_CHARS else None
    if found is None:
        raise _no_url("The URL is not a plain web address.")
    scheme, host = found["scheme"].lower(), found["host"].lower()
    port = PORTS[scheme] if found["port"] is None else int(found["port"])
    if not 1 <= port <= 65_535:
        raise _no_url("The URL's port is none.")
    if host.startswith("["):
        address = _address(host[1:-1])
        if address is None or address.version != 6:
            raise _no_url("The URL's IPv6 address is none.")
        host = str(address)
    elif _NUMERIC.fullmatch(host.rstrip(".")):
        # Dotted quads only, without leading zeros: what is octal to one library is decimal to the
        # next.
        if _address(host) is None:
            raise _no_url("The URL's host is a number in an odd form.")
    elif not _NAME.fullmatch(host):
        raise _no_url("The URL's host is no name.")
    target = found["target"]
    return Target(scheme, host, port, target if target.startswith("/") else f"/{target}")


def private_trust(ca: str) -> ssl.SSLContext:
    """Trust in these certificates alone, PEM.

    :raises ReceiverRefused: there is none among them, one cannot be read, or a private key came
        along, which is nobody's business here.
    """
    refused = ReceiverRefused(
        "The certificates to trust cannot be read.",
        hint="Give the receiver's authority as PEM: certificates only, no private key.",
    )
    # Given an empty text, the ssl module would trust the whole machine.
    if "PRIVATE KEY" in ca or "BEGIN CERTIFICATE" not in ca or not ca.isascii():
        raise refused
    try:
        context = ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise refused from error
    if not context.cert_store_stats()["x509"]:
        raise refused
    return context


def _entry(text: str) -> _Entry:
    ports: frozenset[int] | None = frozenset(PORTS.values())
    network = _network(text)
    name = text
    if network is None and (found := _ENTRY.fullmatch(text)):
        name = found["six"] or found["other"]
        network = _network(name)
        if found["six"] and (network is None or network.version != 6):
            raise _no_entry(text)
        ports = None if found["port"] == ANY_PORT else frozenset({int(found["port"])})
        if ports and not all(1 <= port <= 65_535 for port in ports):
            raise _no_entry(text)
    if network is None:
        if _NUMERIC.fullmatch(name) or not _NAME.fullmatch(name):
            raise _no_entry(text)
        return _Entry(None, name, ports)
    if _inside(network, _NEVER) and not _inside(network, _LOOPBACK):
        raise SettingsError(
            f"webhook_allow: {text} never is a receiver.",
            hint="Link-local, multicast, reserved and metadata addresses cannot be listed.",
        )
    return _Entry(network, None, ports)


def _address(text: str) -> Address | None:
    """None for what is no address, or one with an IPv6 scope."""
    try:
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> Network | None:
    try:
        return None if "%" in text else ipaddress.ip_network(text)
    except ValueError:
        return None


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _inside(network: Network, others: Sequence[Network]) -> bool:
    return any(
        network.version == other.version
        and network.prefixlen >= other.prefixlen
        and network.network_address in other
        for other in others
    )


def _told(target: Target, address: Address | None = None) -> str:
    """The narrowest entry that would admit it."""
    host = str(address or target.host)
    if target.port in PORTS.values():
        return host
    return f"[{host}]:{target.port}" if ":" in host else f"{host}:{target.port}"


def _no_url(detail: str) -> ReceiverRefused:
    return ReceiverRefused(
        detail,
        hint="Write https://HOST:PORT/PATH, without user name and fragment; HOST is a name, a "
        "dotted IPv4 or a bracketed IPv6 address.",
    )


def _no_entry(text: str) -> SettingsError:
    return SettingsError(
        f"webhook_allow: {text!r} is no receiver.",
        hint="Write names, addresses or networks without host bits, such as 10.2.0.0/16, "
        "crm.example.com:8443 or [fd00::/8]:443.",
    )

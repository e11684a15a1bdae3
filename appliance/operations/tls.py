"""What the LAN port speaks: TLS by the administrator's certificate, or plain HTTP where that was
meant.

Keys and passwords travel in every request. Whoever binds an address that other machines reach has
to say how these are kept from being read on the way.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from appliance.errors import SettingsError
from appliance.settings import Settings

_ENCRYPTED = "The key is encrypted; write it without a passphrase, readable by this user only."


@dataclass(frozen=True, slots=True)
class Certificate:
    """What browsers are shown. ``problem`` is what is wrong with its dates, if anything."""

    not_after: datetime | None
    problem: str | None


def context(settings: Settings) -> ssl.SSLContext | None:
    """The server's side of TLS, 1.2 or newer; None where no certificate is set.

    :raises SettingsError: one of the two files is not named, cannot be read, holds something else,
        or the two do not belong together.
    """
    certificate, key = settings.tls_cert_file, settings.tls_key_file
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        missing = "tls_key_file" if key is None else "tls_cert_file"
        raise SettingsError(f"{missing} is missing: TLS needs a certificate and its key.")
    for name, path, mark in (
        ("tls_cert_file", certificate, b"-----BEGIN CERTIFICATE-----"),
        ("tls_key_file", key, b"PRIVATE KEY-----"),
    ):
        if mark not in _read(name, path):
            raise SettingsError(f"{name}: {path} is no such file in PEM form.")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        server.load_cert_chain(certificate, key, password=_refuse_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(
                f"{key} is not the key of {certificate}.",
                hint="The server's own certificate comes first in the file, then the chain.",
            ) from error
        raise SettingsError(f"{certificate} and {key} cannot be used: {error.reason}.") from error
    server.set_alpn_protocols(["http/1.1"])
    return server


def require_safe_bind(settings: Settings) -> None:
    """:raises SettingsError: other machines could reach the port and would be answered in plain
    HTTP, which nobody said is meant."""
    if settings.tls_cert_file or settings.tls_key_file or settings.allow_plain_http:
        return
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError:
        return  # binding says what is wrong with it
    for *_, address in found:
        if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
            raise SettingsError(
                f"{settings.host or 'The address'} can be reached from other machines, and keys "
                "and passwords would travel unencrypted.",
                hint="Set tls_cert_file and tls_key_file; or allow_plain_http where a proxy speaks "
                "TLS or the network is trusted.",
            )


def examine(server: ssl.SSLContext, certificate: Path) -> Certificate:
    """The certificate as a client finds it that trusts nothing else: a handshake in memory."""
    client = ssl.create_default_context(cafile=certificate)
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(up, down, server_side=True)
    theirs = client.wrap_bio(down, up)
    for _ in range(4):
        for end in (theirs, ours):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return Certificate(None, error.verify_message)
            except ssl.SSLError as error:
                return Certificate(None, error.reason)
    shown = theirs.getpeercert() or {}
    ends = ssl.cert_time_to_seconds(str(shown["notAfter"]))
    return Certificate(datetime.fromtimestamp(ends, UTC), None)


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{name}: {path} cannot be read: {error.strerror}.") from error


def _refuse_passphrase() -> NoReturn:
    # Without this OpenSSL would ask for it on the terminal, and a service would hang.
    raise SettingsError(_ENCRYPTED)

"""Whether the settings admit a remote backend: where it is, and the key that is not in them."""

from __future__ import annotations

import ipaddress
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from appliance.errors import SettingsError
from appliance.settings import Settings, handed_over

_KEY: Final = re.compile(rb"[\x21-\x7e]{1,4096}")


@dataclass(frozen=True, slots=True)
class RemoteAccess:
    """An address that may be called, and where its key lies."""

    url: str
    host: str
    key_file: Path

    def headers(self) -> dict[str, str]:
        """The key as a header, read anew, so that a changed key holds at once.

        :raises SettingsError: it cannot be read now.
        """
        return {"authorization": f"Bearer {read_key(self.key_file)}"}


def admitted(settings: Settings) -> RemoteAccess:
    """The way to the remote backend.

    :raises SettingsError: it is not enabled, or enabled without all that it needs.
    """
    if not settings.remote_enabled:
        raise SettingsError("No remote backend is enabled.", hint="Set remote.enabled = true.")
    host = _host(settings.remote_url)
    if settings.remote_key_file is None:
        raise SettingsError(
            "remote.enabled is set without a key file.",
            hint="Name the file that holds the key with remote.key_file, or switch remote off.",
        )
    read_key(settings.remote_key_file)
    return RemoteAccess(settings.remote_url.rstrip("/"), host, settings.remote_key_file)


def read_key(file: Path) -> str:
    """The key in a file.

    :raises SettingsError: the file is missing, open to others, or holds no key. What it holds is
        never part of the error.
    """
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise SettingsError(f"{file} is not a file.", hint="Name a file with remote.key_file.")
        if stat.S_IMODE(found.st_mode) & 0o077 and not handed_over(file):
            raise SettingsError(
                f"{file} can be read by other users.", hint=f"Run 'chmod 600 {file}'."
            )
        key = file.read_bytes().strip()
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be read: {error.strerror}.", hint="Check remote.key_file."
        ) from error
    if not _KEY.fullmatch(key):
        raise SettingsError(
            f"{file} does not hold a key.", hint="The file holds the key alone, on one line."
        )
    return key.decode("ascii")


def _host(url: str) -> str:
    """The host of an address that customers' words may be sent to.

    :raises SettingsError: no such address.
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        raise SettingsError("remote.url is not a URL.", hint="Use https://HOST/PATH.") from None
    if not host or parts.scheme not in ("https", "http") or "@" in parts.netloc:
        raise SettingsError("remote.url is not a web address.", hint="Use https://HOST/PATH.")
    if parts.query or parts.fragment or parts.path.rstrip("/").endswith("/v1"):
        raise SettingsError(
            "remote.url is not the root of an API.", hint="Leave out /v1 and what follows it."
        )
    if parts.scheme == "http" and not _is_loopback(host):
        raise SettingsError(
            "remote.url would send customers' words unencrypted.", hint="Use https://."
        )
    return host if port is None else f"{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

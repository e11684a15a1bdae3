"""The folders that an appliance keeps to itself."""

from __future__ import annotations

import os
import stat

from appliance.errors import SettingsError
from appliance.settings.fields import Settings

SOCKET_PATH_MAX = 107
"""Longest path a Unix socket address can hold on Linux, in bytes."""


def ensure_folders(settings: Settings) -> None:
    """Create the data and socket folders, private to this user.

    :raises SettingsError: when a folder cannot be made, belongs to somebody else (a planted folder
        in a shared temporary directory), or makes socket paths too long for the kernel.
    """
    for folder in (settings.data_dir, settings.sockets):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = folder.stat()
        except OSError as error:
            raise SettingsError(f"{folder} cannot be used: {error.strerror}.") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SettingsError(f"{folder} is not writable for this user.")
        if folder == settings.sockets and (
            folder.is_symlink()
            or owner.st_uid not in (os.getuid(), 0)
            or stat.S_IMODE(owner.st_mode) & 0o022
        ):
            raise SettingsError(
                f"{folder} could be changed by other users.",
                hint="Remove it, or name a private folder with APPLIANCE_RUNTIME_DIR.",
            )
    longest = os.fsencode(settings.sockets / "engine-0000000000.sock")
    if len(longest) > SOCKET_PATH_MAX:
        raise SettingsError(
            f"{settings.sockets} is too long for a socket path.",
            hint="Name a shorter folder with APPLIANCE_RUNTIME_DIR.",
        )

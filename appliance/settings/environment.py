"""The environment, read here and nowhere else: a test looks."""

from __future__ import annotations

import os
from pathlib import Path

from appliance.errors import SettingsError
from appliance.settings.home import ROOT

PREFIX = "APPLIANCE_"
"""Begin of the variables that are settings."""

_DEFAULT_CONFIG = (ROOT or Path("/")) / "etc/appliance/appliance.toml"

_CREDENTIALS = ROOT / "etc/appliance/credentials" if ROOT else None
"""Where root keeps what the units hand to their processes."""


def config_file() -> Path | None:
    """The TOML file in force, or None.

    :raises SettingsError: ``APPLIANCE_CONFIG`` names a file that does not exist.
    """
    named = os.environ.get("APPLIANCE_CONFIG")
    if named:
        path = Path(named).expanduser().absolute()
        if not path.is_file():
            raise SettingsError(f"APPLIANCE_CONFIG names {path}, which is not a file.")
        return path
    return _DEFAULT_CONFIG if ROOT and _DEFAULT_CONFIG.is_file() else None


def credential(name: str) -> Path | None:
    """A secret that the service manager handed to this process, or, for a command of root's, the
    file it would be handed; None where there is none, or a line with nothing in it."""
    given = os.environ.get("CREDENTIALS_DIRECTORY")
    folder = Path(given) if given else _CREDENTIALS
    if folder is None:
        return None
    try:
        return folder / name if (folder / name).read_bytes().strip() else None
    except OSError:
        return None


def closed_credentials() -> Path | None:
    """Root's folder of credentials where this process was handed none and may not look into it:
    which of them there are cannot be told. None everywhere else."""
    folder = _CREDENTIALS
    if folder is None or os.environ.get("CREDENTIALS_DIRECTORY") or not folder.is_dir():
        return None
    return None if os.access(folder, os.R_OK | os.X_OK) else folder


def handed_over(file: Path) -> bool:
    """Whether only this process can reach a file, whatever its mode says: a credential's may show
    the mask of an access list."""
    return os.environ.get("CREDENTIALS_DIRECTORY") == str(file.parent)


def own_variables() -> list[str]:
    """Names in the environment that look like settings."""
    return [name for name in os.environ if name.startswith(PREFIX)]


def notify_socket() -> str | None:
    """Where the service manager listens; systemd's variable, not a setting."""
    return os.environ.get("NOTIFY_SOCKET") or None


def torch_index() -> str | None:
    """A package index that has a CPU build of PyTorch, for building bundles; install.sh reads it,
    too."""
    return os.environ.get("APPLIANCE_TORCH_INDEX") or None


def cache_folder() -> Path:
    """Where bundles' builder keeps what it can make again, by the XDG rules."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "smartsupport-appliance"


def compiler_environment(programs: Path) -> dict[str, str]:
    """The environment in which a bundle's code is compiled: ``programs`` come first, and no flags
    of the shell's reach the compiler, or two builds would differ."""
    flags = {"CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CMAKE_ARGS", "CC", "CXX"}
    kept = {name: value for name, value in os.environ.items() if name not in flags}
    return kept | {"PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}"}

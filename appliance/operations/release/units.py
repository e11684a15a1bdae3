"""The units of a release as files: copied whole, compared by content, local drop-ins never
touched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from appliance.errors import InvalidInput
from appliance.operations.release.layout import Layout, sync_folder, write_durably

PREFIX: Final = "appliance"
SUFFIXES: Final = (".service", ".target", ".timer", ".socket", ".path", ".slice")


def is_ours(path: Path) -> bool:
    """Whether a file of the units' folder is one of our units: all of them begin with our name."""
    return _is_name(path.name) and path.is_file()


def _is_name(name: str) -> bool:
    plain = name == Path(name).name
    return plain and name.startswith(PREFIX) and name.endswith(SUFFIXES)


def shipped(layout: Layout, version: str) -> dict[str, bytes]:
    """The units of a release by name."""
    folder = layout.release(version) / "systemd"
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*")) if is_ours(path)}


def installed(layout: Layout) -> dict[str, bytes]:
    """Our units that are in place, by name."""
    if not layout.units.is_dir():
        return {}
    return {
        path.name: path.read_bytes() for path in sorted(layout.units.iterdir()) if is_ours(path)
    }


def put(layout: Layout, units: Mapping[str, bytes]) -> bool:
    """Make these the units in place. True when anything changed.

    :raises InvalidInput: one of them is not named as ours are; nothing is changed.
    """
    for name in units:
        if not _is_name(name):
            raise InvalidInput(f"{name!r} is no unit of this product.")
    there = installed(layout)
    if there == units:
        return False
    layout.units.mkdir(parents=True, exist_ok=True)
    for name, content in units.items():
        if there.get(name) != content:
            write_durably(layout.units / name, content)
    for name in there.keys() - units.keys():
        (layout.units / name).unlink()
    sync_folder(layout.units)
    return True


def is_enabled_by_name(content: bytes) -> bool:
    """Whether a unit asks to be enabled: it has an [Install] section."""
    return any(line.strip() == b"[Install]" for line in content.splitlines())

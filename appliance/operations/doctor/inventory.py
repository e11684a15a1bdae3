"""Our processes, by what Linux tells of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.settings import Settings

PROC: Final = Path("/proc")
_COMMAND: Final = re.compile(r"(?:-m appliance|/bin/appliance) (api|engine|worker|up|vllm)\s*$")


@dataclass(frozen=True, slots=True)
class Process:
    """A process; ``resident`` is in bytes."""

    pid: int
    name: str
    resident: int


def processes(settings: Settings | None = None) -> list[Process]:
    """Those of this appliance that this user may see.

    :param settings: tells apart appliances with other data folders; those whose environment cannot
        be read count as this one's.
    """
    found = []
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            name = name_of(words)
            if name is None or (settings and not _of(folder, settings)):
                continue
            pages = int((folder / "statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it ended while we looked
        found.append(Process(int(folder.name), name, pages * 4096))
    return found


def name_of(command: str) -> str | None:
    """Which process of ours a command line starts: the keeper is ``engine``, what it keeps is
    ``model``."""
    match = _COMMAND.search(command)
    if match:
        return match[1]
    if "-m appliance.llm.engine " in command:
        return "model"
    return "vllm" if "vllm.entrypoints" in command or "vllm serve" in command else None


def _of(folder: Path, settings: Settings) -> bool:
    try:
        environment = (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return True
    named = [line for line in environment if line.startswith(b"APPLIANCE_DATA_DIR=")]
    if not named:
        return bool(settings.data_dir == type(settings).model_fields["data_dir"].default)
    return Path(named[0].partition(b"=")[2].decode(errors="replace")) == settings.data_dir

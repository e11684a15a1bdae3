"""What of a data folder a backup holds: every kind of file there has one of five fates.

``saved`` travels in every backup, ``secret`` only where it is asked for and then encrypted,
``rebuilt`` is made again by the appliance from the rest, ``passing`` means something to running
processes only, and ``elsewhere`` is kept apart for its size. A file of none of them is told about,
not guessed at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

Fate = Literal["saved", "secret", "rebuilt", "passing", "elsewhere"]

STATE_FILE: Final = "backup.json"
"""When a backup was last made and rehearsed; see ``standing``."""
LOCK_FILE: Final = "backup.lock"
JOURNAL_FILE: Final = "restore.json"
BACKUPS: Final = "backups"
"""The folder of backups, unless the settings name another one."""
ASIDE: Final = "before-restore-"
"""How the folders begin that keep what a restore replaced."""
HANDED: Final = "restored"
"""Where files of a backup are laid that belong outside of the data folder."""

_FATES: Final[tuple[tuple[Fate, str], ...]] = (
    # The heads that people's corrections taught, and which of them reads; what each model's word
    # was measured to be worth; which model serves.
    ("saved", r"heads/learned-\d{4,9}\.npz"),
    ("saved", r"heads/(learning|opinions)\.json"),
    ("saved", r"engine/active\.json"),
    ("secret", r"secrets/[a-z][a-z0-9_-]{0,63}"),
    ("passing", r"(.*/)?(\..*|[^/]*\.(lock|sock|part|pid|log))"),
    ("passing", r"engine/switch\.json"),
    ("passing", r"run/.*"),
    # Hints for the worker: what is due stands in the database.
    ("passing", r"queue\.db(-.*)?"),
    ("passing", rf"({STATE_FILE}|{JOURNAL_FILE})".replace(".", r"\.")),
    # Read through the database, never as a file.
    ("passing", r"appliance\.db(-wal|-shm|-journal)?"),
    ("rebuilt", r"(index|embeddings|vllm)/.*"),
    ("rebuilt", r"heads/(shipped|vectors)\.npz"),
    # Of the machine, not of the desk: measured again on another one.
    ("rebuilt", r"weights/.*\.(requantized|tuning)\.json"),
    # Weights come with the bundle, or from whoever brought them.
    ("elsewhere", r"weights/.*"),
    ("elsewhere", rf"({BACKUPS}|{HANDED}|{ASIDE}[^/]*)/.*"),
)
_RULES: Final = [(fate, re.compile(pattern)) for fate, pattern in _FATES]


def fate(path: str) -> Fate | None:
    """What becomes of a file, by its path in the data folder; None where nobody decided."""
    return next((fate for fate, rule in _RULES if rule.fullmatch(path)), None)


def files(data_dir: Path, wanted: Fate | None) -> Iterator[tuple[str, Path]]:
    """The plain files of that fate, None for those that nobody decided about; no link is
    followed."""
    # Folders vanish while a desk serves: that is no error to os.walk, and one to rglob.
    found = (Path(folder, name) for folder, _, names in os.walk(data_dir) for name in names)
    for path in sorted(found):
        name = path.relative_to(data_dir).as_posix()
        if fate(name) == wanted and path.is_file() and not path.is_symlink():
            yield name, path

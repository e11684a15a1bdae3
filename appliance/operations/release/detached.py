"""Services without systemd: ``appliance up`` in a session of its own, with a file that tells its
process id and one that has its log.

For staging folders and tests, and for machines whose PID 1 is something else. It does not start at
boot: that is systemd's work.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from appliance.operations.release import units
from appliance.operations.release.layout import Layout
from appliance.operations.release.services import (
    LOOK_SECONDS,
    STOP_SECONDS,
    ServiceError,
    wait_until_quiet,
)
from appliance.settings import Settings

# The shell waits for a word before it becomes the appliance, and the word comes when its id is
# written down: of a process that nobody could find again, none is ever left behind by a kill.
_WAITING: Final = 'read -r go && exec "$0" up </dev/null'


class Detached:
    """``appliance up`` of the release in charge."""

    name = "appliance up"

    def __init__(self, layout: Layout, settings: Settings) -> None:
        self._layout = layout
        self._settings = settings
        self._file = layout.run / "up.pid"
        self.log = str(layout.run / "up.log")

    def enable(self) -> None:
        """Nothing starts at boot here."""

    def start(self) -> None:
        """Start it unless it runs."""
        if self.is_running():
            return
        program = self._layout.current / ".venv/bin/appliance"
        if not program.exists():
            raise ServiceError(
                f"{program} does not exist.", hint="'appliance release activate VERSION' first."
            )
        self._layout.make_notes()
        self._layout.run.mkdir(mode=0o755, exist_ok=True)
        owner = self._owner()
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            if owner:
                os.fchown(log, -1, owner["group"])  # the doctor, who is no root, reads it
            process = subprocess.Popen(  # noqa: S603 - our own program
                ["/bin/sh", "-c", _WAITING, str(program)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                **owner,
            )
        finally:
            os.close(log)
        assert process.stdin is not None
        self._file.write_text(f"{process.pid} {_started(process.pid)}\n", encoding="ascii")
        process.stdin.write(b"go\n")
        process.stdin.close()
        # Whoever asks whether it runs reads /proc; an exit status is nobody's.
        process.returncode = 0

    def stop(self) -> None:
        """SIGTERM, on which it lets its children finish; then SIGKILL, which ends them too."""
        pid = self._pid()
        if pid is not None:
            _signal(pid, signal.SIGTERM)
            if not self._ended(STOP_SECONDS):
                _signal(pid, signal.SIGKILL)
                if not self._ended(STOP_SECONDS):
                    raise ServiceError(f"Process {pid} does not end.")
        wait_until_quiet(self._settings)
        self._file.unlink(missing_ok=True)

    def is_running(self) -> bool:
        """Whether the process of the file lives; another one that got its number is not it."""
        return self._pid() is not None

    def install_units(self, wanted: Mapping[str, bytes]) -> bool:
        """Copy them, for whoever looks; nobody here reads them."""
        return units.put(self._layout, wanted)

    def remove_units(self) -> None:
        """Delete our units."""
        units.put(self._layout, {})

    def _pid(self) -> int | None:
        try:
            pid, began = (int(word) for word in self._file.read_text(encoding="ascii").split())
        except (FileNotFoundError, ValueError):
            return None
        return pid if _started(pid) == began else None

    def _ended(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.is_running():
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS)
        return True

    def _owner(self) -> dict[str, Any]:
        """As whom it runs: root starts it as the owner of the data, never as itself."""
        if os.geteuid() != 0:
            return {}
        try:
            found = self._settings.data_dir.stat()
        except FileNotFoundError:
            return {}
        if found.st_uid == 0:
            return {}
        sockets = self._settings.sockets
        sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
        # In a folder that everybody writes in: of a planted link nobody gets what it leads to.
        os.chown(sockets, found.st_uid, found.st_gid, follow_symlinks=False)
        return {"user": found.st_uid, "group": found.st_gid, "extra_groups": []}


def _started(pid: int) -> int | None:
    """When a process began, in the kernel's ticks; None when it is gone or only its status is
    left."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if words[0] in ("Z", "X") else int(words[19])


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return

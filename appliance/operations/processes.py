"""Child processes that are kept alive: started, watched, restarted with patience, ended
together."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from appliance.logs import get_logger

log = get_logger()

_PR_SET_PDEATHSIG = 1
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
STEADY_SECONDS = 60.0
"""A child that lived this long was well: its next restart is quick again."""
STOP_SECONDS = 20.0


def appliance_command(*arguments: str) -> list[str]:
    """The command line of this very installation, whatever PATH says."""
    return [sys.executable, "-m", "appliance", *arguments]


class Child:
    """One process of ours. Not thread-safe: whoever keeps children polls them from one loop."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._pause = FIRST_PAUSE
        self._not_before = 0.0

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_status(self) -> int | None:
        """How it ended, or None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start it. It dies with this process, also when this one is killed, and does not see the
        terminal's Ctrl-C: the parent decides when it stops."""
        self._started = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 - a fixed command of ours
            self._command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # safe: parents are single-threaded
        )
        log.info("process_started", name=self.name, pid=self._process.pid)

    def keep(self) -> bool:
        """Restart it if it ended and its pause is over. True when it was (re)started now."""
        if self._process is not None and self._process.poll() is None:
            return False
        now = time.monotonic()
        if self._process is not None:
            status = self._process.returncode
            if now - self._started > STEADY_SECONDS:
                self._pause = FIRST_PAUSE
            self._not_before = now + self._pause
            log.warning("process_ended", name=self.name, status=status, restart_in=self._pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            self._process = None
        if now < self._not_before:
            return False
        self.start()
        return True

    def terminate(self) -> None:
        """Ask it to stop."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGTERM)

    def finish(self, seconds: float = STOP_SECONDS) -> None:
        """Wait until it has stopped; kill it when it does not within ``seconds``."""
        if self._process is None:
            return
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            log.warning("process_killed", name=self.name)
            self._process.kill()
            self._process.wait()
        self._process = None


class StopRequested:
    """Turns SIGTERM and SIGINT into a flag that a loop looks at."""

    def __init__(self) -> None:
        self.seen = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._see)

    def _see(self, number: int, frame: object) -> None:
        self.seen = True


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

"""Starting and stopping the appliance's processes: the one seam between an installation and
whatever runs it, systemd or, where that is not PID 1 or the root is a staging folder, ``appliance
up`` in the background."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from appliance.errors import ApplianceError, Conflict
from appliance.operations.locks import hold_lock
from appliance.operations.release.layout import Layout
from appliance.settings import Settings

STOP_SECONDS: Final = 90.0
"""Longest a clean end may take: the worker has 60 seconds for the deliveries under way."""
LOOK_SECONDS: Final = 0.05
LOCKS: Final = ("up.lock", "api.lock", "worker.lock")
"""What the processes that write hold in the data folder while they live."""


class ServiceError(ApplianceError):
    """The services do not do what they were told."""

    code = "services"
    title = "The services do not obey"
    default_hint = "See their log: 'journalctl -u appliance-api', or the file that was named."


class Services(Protocol):
    """Control of the services of one installation. Every method may be called again."""

    name: str
    """What does the work, for people."""
    log: str
    """Where the processes' log is, for people."""

    def start(self) -> None:
        """Order the start of the release in charge; who wants to know how it went, looks.

        :raises ServiceError: the order was refused.
        """

    def enable(self) -> None:
        """Have it started at each boot. Not while it is on trial, when what is enabled stays as it
        is.

        :raises ServiceError: the order was refused.
        """

    def stop(self) -> None:
        """Let everything end well; returns when it has ended.

        :raises ServiceError: something does not end.
        """

    def is_running(self) -> bool:
        """Whether any of it runs, starts or stops."""

    def install_units(self, wanted: Mapping[str, bytes]) -> bool:
        """Put these units, by name, in place of whatever units of ours are there. Drop-ins stay.

        :return: whether anything changed.
        """

    def remove_units(self) -> None:
        """Take our units away; drop-ins stay."""


def services_of(layout: Layout, settings: Settings) -> Services:
    """What controls the services of this installation."""
    from appliance.operations.release.detached import Detached
    from appliance.operations.release.systemd import Systemd

    # sd_booted(3): this folder is there exactly where systemd is the system's manager.
    if layout.root == Path("/") and Path("/run/systemd/system").is_dir():
        return Systemd(layout)
    return Detached(layout, settings)


def wait_until_quiet(settings: Settings, seconds: float = STOP_SECONDS) -> None:
    """Return when no process writes in the data folder, whoever started it.

    A service manager only knows of processes that it started itself; the locks know of all.

    :raises Conflict: one still does.
    """
    deadline = time.monotonic() + seconds
    while True:
        taken = _held(settings.data_dir)
        if not taken:
            return
        if time.monotonic() > deadline:
            raise Conflict(
                f"A process still works in {settings.data_dir} ({', '.join(taken)} is held).",
                hint="End what was started by hand, then try again.",
            )
        time.sleep(LOOK_SECONDS)


def _held(folder: Path) -> list[str]:
    """The locks that somebody holds at this moment."""
    taken = []
    for name in LOCKS:
        if (folder / name).exists():
            with hold_lock(folder / name) as free:
                if not free:
                    taken.append(name)
    return taken

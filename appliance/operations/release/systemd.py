"""Services under systemd."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Final

from appliance.logs import get_logger
from appliance.operations.release import units
from appliance.operations.release.layout import Layout
from appliance.operations.release.services import STOP_SECONDS, ServiceError

log = get_logger()

ORDER_SECONDS: Final = 60.0
"""Longest an order that waits for no service may take."""
RECOVERY: Final = "appliance-recover.service"
"""Runs before the others at boot and may be the one that gives these orders: it stops nobody but
them."""
RUNNING: Final = frozenset(("active", "activating", "deactivating", "reloading"))


class Systemd:
    """The units of one machine, through ``systemctl``."""

    name = "systemd"
    log = "journalctl -u 'appliance-*'"

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def start(self) -> None:
        """Order the start, without waiting for it: units wait for one another."""
        wanted = self._wanted()
        # A unit that failed too often would not start again otherwise.
        self._order("reset-failed", *units.installed(self._layout), checked=False)
        self._order("start", "--no-block", *(name for name in wanted if name != RECOVERY))

    def enable(self) -> None:
        """Enable every unit that asks for it."""
        self._order("enable", *self._wanted())

    def stop(self) -> None:
        """Stop target, timers and services, and wait for their end."""
        names = self._names()
        if names:
            self._order("stop", *names, seconds=STOP_SECONDS)
        if self.is_running():
            raise ServiceError("Services still run after the order to stop.")

    def is_running(self) -> bool:
        """Whether any service is up or on its way. Targets and timers are no processes."""
        services = [name for name in self._names() if name.endswith(".service")]
        if not services:
            return False
        done = self._run("is-active", *services, seconds=ORDER_SECONDS)
        return bool(RUNNING & set(done.stdout.split()))

    def install_units(self, wanted: Mapping[str, bytes]) -> bool:
        """Copy them and have systemd read them."""
        gone = [name for name in units.installed(self._layout) if name not in wanted]
        if gone:
            self._order("disable", *gone, checked=False)
        changed = units.put(self._layout, wanted)
        if changed:
            self._order("daemon-reload")
        return changed

    def remove_units(self) -> None:
        """Disable and delete our units."""
        there = list(units.installed(self._layout))
        if there:
            self._order("disable", *there, checked=False)
            units.put(self._layout, {})
            self._order("daemon-reload")

    def _wanted(self) -> list[str]:
        there = units.installed(self._layout)
        wanted = [n for n, content in there.items() if units.is_enabled_by_name(content)]
        if not wanted:
            raise ServiceError(f"There are no units in {self._layout.units}.")
        return wanted

    def _names(self) -> list[str]:
        return [name for name in units.installed(self._layout) if name != RECOVERY]

    def _order(
        self, verb: str, *words: str, checked: bool = True, seconds: float = ORDER_SECONDS
    ) -> None:
        done = self._run(verb, *words, seconds=seconds)
        if done.returncode and checked:
            said = done.stderr.strip().splitlines()
            raise ServiceError(f"systemctl {verb} failed: {said[-1] if said else done.returncode}")

    @staticmethod
    def _run(verb: str, *words: str, seconds: float) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(  # noqa: S603 - fixed words and names of our own units
                ["systemctl", verb, *words],  # noqa: S607 - where PATH says, as for any administrator
                capture_output=True,
                text=True,
                timeout=seconds,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ServiceError(f"systemctl {verb} takes longer than {seconds:.0f} s.") from error
        except OSError as error:
            raise ServiceError(f"systemctl cannot be run: {error.strerror}.") from error

"""A clock that somebody sets forward and back by an hour while everything runs."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.appliance_process import until
from tests.chaos.customers import Customers
from tests.chaos.fixtures import MakeUnits
from tests.chaos.ledger import audit
from tests.chaos.outbox import ENVIRONMENT, UNITS, Subscription, audit_deliveries, drained
from tests.chaos.test_full_disk import served_again
from tests.chaos.units import Units
from tests.webhook_receivers import Receiver

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]

JUMPS = (3_600, 0, -3_600, 0)
"""The clock's distance from the true time in seconds, one after the other."""


class MovedClock:
    """The wall clock of processes that were started with ``environment``; see moved_clock.c."""

    def __init__(self, folder: Path) -> None:
        library = folder / "moved_clock.so"
        source = Path(__file__).with_name("moved_clock.c")
        subprocess.run(
            ["g++", "-x", "c", "-O2", "-shared", "-fPIC", "-o", library, source], check=True
        )
        self._file = folder / "moved"
        self.move(0)
        self.environment = {"LD_PRELOAD": str(library), "MOVED_CLOCK": str(self._file)}

    def move(self, seconds: int) -> None:
        """Set it so far from the true time, in every process at once."""
        mode = "r+b" if self._file.exists() else "wb"
        with self._file.open(mode) as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


def test_a_clock_that_jumps_loses_nothing(
    make_units: MakeUnits,
    receiver: Receiver,
    tmp_path: Path,
    show: Callable[[object], None],
) -> None:
    clock = MovedClock(tmp_path)
    environment = ENVIRONMENT | clock.environment
    desk = make_units(environment=environment, names=UNITS)
    customers = Customers(desk, 3)
    webhook = Subscription(desk, receiver)
    with customers.at_work():
        served_again(desk, customers)
        for number, jump in enumerate(JUMPS):
            clock.move(jump)
            if number % 2:
                # With leases and messages from a time that has not come yet.
                for unit in ("worker", "api"):
                    desk.kill(desk.pid(unit), signal.SIGKILL)
            served_again(desk, customers)
            served_again(desk, customers)
        assert jumped(desk) > 3_000
    until(webhook.has_all, "every event")
    drained(desk)
    ledger = audit(desk, customers.entries)
    audit_deliveries(ledger, desk, [webhook])
    show(f"{ledger}; statuses {dict(customers.statuses)}")
    assert ledger.wrong == []
    assert customers.strange == []
    desk.stop()


def jumped(desk: Units) -> float:
    """How far apart the first and the last time in the database are, in seconds: the clock did
    move."""
    # Both are ISO 8601 texts in SQLite.
    ((seconds,),) = desk.table(
        "SELECT (julianday(max(created_at)) - julianday(min(created_at))) * 86400 FROM messages"
    )
    return float(seconds)

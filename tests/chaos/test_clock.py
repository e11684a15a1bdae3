"""A clock that somebody sets forward and back by an hour while everything runs."""

from __future__ import annotations

import signal
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

JUMPS = ("+3600s", "+0s", "-3600s", "+0s")
"""The clock's distance from the true time, one after the other."""


def test_a_clock_that_jumps_loses_nothing(
    make_units: MakeUnits,
    receiver: Receiver,
    clock: Path,
    faketime: str,
    show: Callable[[object], None],
) -> None:
    environment = ENVIRONMENT | {
        "LD_PRELOAD": faketime,
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        # As on a real machine: what counts elapsed time does not jump.
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    desk = make_units(environment=environment, names=UNITS)
    customers = Customers(desk, 3)
    webhook = Subscription(desk, receiver)
    with customers.at_work():
        served_again(desk, customers)
        for number, jump in enumerate(JUMPS):
            clock.write_text(jump)
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


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """Where the clock's distance from the true time is written."""
    file = tmp_path / "clock"
    file.write_text("+0s")
    return file


@pytest.fixture(scope="session")
def faketime() -> str:
    """libfaketime, which Debian's package faketime brings."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert found, "install Debian's package faketime"
    return str(found[0])

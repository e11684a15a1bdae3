"""A disk that reports errors while the database uses it, told to the kernel by strace."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.appliance_process import until
from tests.chaos.customers import Customers
from tests.chaos.disks import READS, SYNCS, WRITES, faults
from tests.chaos.fixtures import MakeUnits
from tests.chaos.ledger import audit
from tests.chaos.test_full_disk import served_again
from tests.chaos.units import Units

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]

FAULTS = [
    (SYNCS, "EIO", "1+"),
    (SYNCS, "EIO", "2+3"),
    (WRITES, "EIO", "3+5"),
    (WRITES, "ENOSPC", "2+4"),
    (WRITES, "ENOSPC", "1+"),
    (READS, "EIO", "2+3"),
]
"""Calls, the error, and which of them fail: ``2+3`` is the second and every third after it."""


def test_errors_of_the_disk_lose_nothing_and_need_no_help(
    make_units: MakeUnits, show: Callable[[object], None]
) -> None:
    desk = make_units()
    customers = Customers(desk, 3)
    failed: dict[str, int] = {}
    with customers.at_work():
        served_again(desk, customers)
        for calls, error, when in FAULTS:
            with broken(desk, calls, error, when) as count:
                pass
            failed[f"{error} {calls.split(',')[0]} {when}"] = count()
            served_again(desk, customers)
        assert desk.restarts == {"engine": 0, "api": 0}
        # Killed in the middle of it: what lies half written in the log must not be taken for whole.
        for calls, error in ((SYNCS, "EIO"), (WRITES, "EIO")):
            with broken(desk, calls, error, "2+2"):
                desk.kill(desk.pid("api"), signal.SIGKILL)
            served_again(desk, customers)
    ledger = audit(desk, customers.entries)
    show(f"{ledger}; statuses {dict(customers.statuses)}; failed calls {failed}")
    assert ledger.wrong == []
    assert customers.strange == []
    desk.stop()


@contextmanager
def broken(desk: Units, calls: str, error: str, when: str) -> Iterator[Callable[[], int]]:
    """The block begins once some calls of the API on its database have failed."""
    database = desk.data_dir / "appliance.db"
    files = [database, database.with_name("appliance.db-wal")]
    with faults(desk.pid("api"), calls, error, files, when=when) as injected:
        until(lambda: injected.count >= 4, f"{error} of {calls}")
        count = injected.count
        yield lambda: count

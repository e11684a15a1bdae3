"""Receivers that fail in every way there is, and a queue that is taken away, beside customers."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from appliance.jobs.queue import FILE
from tests.appliance_process import until
from tests.chaos.customers import Customers
from tests.chaos.fixtures import MakeUnits
from tests.chaos.ledger import audit
from tests.chaos.outbox import ENVIRONMENT, UNITS, Subscription, audit_deliveries, drained
from tests.chaos.test_full_disk import served_again
from tests.webhook_receivers import OK, Receiver, Reply

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]

HUGE = 300_000_000
MEMORY_MIB = 48
"""Most that the worker's memory may grow by while a receiver floods it."""

BAD = {
    "500": Reply(500),
    "429": Reply(429, headers={"Retry-After": "1"}),
    "reset": Reply(reset=True),
    "hang": Reply(hang=30.0),
    "flood": Reply(500, huge=HUGE),
}


def test_bad_receivers_hold_up_nobody_and_get_everything_once_they_are_well(
    make_units: MakeUnits, receiver: Receiver, show: Callable[[object], None]
) -> None:
    desk = make_units(environment=ENVIRONMENT, names=UNITS)
    customers = Customers(desk, 3)
    with ExitStack() as stack:
        bad = {name: stack.enter_context(Receiver(reply)) for name, reply in BAD.items()}
        webhooks = [Subscription(desk, each) for each in (receiver, *bad.values())]
        good = webhooks[0]
        before = peak_mib(desk.pid("worker"))
        with customers.at_work():
            # Each has failed several times, and whatever happened reached the one that is well.
            until(lambda: all(len(each.received) > 4 for each in bad.values()), "failures")
            served_again(desk, customers)
        until(good.has_all, "every event where all is well")
        assert not any(each.delivered() for each in webhooks[1:]), "the bad ones took nothing"
        grown = peak_mib(desk.pid("worker")) - before
        # A queue that is removed, and a process whose hint went into the removed one.
        with customers.again().at_work():
            for path in desk.data_dir.glob(f"{FILE}*"):
                path.unlink()
            served_again(desk, customers)
            desk.kill(desk.pid("worker"), signal.SIGKILL)
            for path in desk.data_dir.glob(f"{FILE}*"):
                path.unlink()
            served_again(desk, customers)
        until(good.has_all, "every event, without the queue's file")
        for each in bad.values():
            each.reply = OK
            each.closing.set()
        drained(desk)
        ledger = audit(desk, customers.entries)
        audit_deliveries(ledger, desk, webhooks)
        tries = {name: len(each.received) for name, each in bad.items()}
    show(f"{ledger}; attempts at bad receivers {tries}; worker's memory grew by {grown} MiB")
    assert ledger.wrong == []
    assert customers.strange == []
    assert grown < MEMORY_MIB
    desk.stop()


def peak_mib(pid: int) -> int:
    """The most memory a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    raise AssertionError(f"no peak of process {pid}")

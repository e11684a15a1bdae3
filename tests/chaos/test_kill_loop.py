"""kill -9 at random moments, under customers."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.appliance_process import processes_of, until
from tests.chaos.customers import Customers
from tests.chaos.fixtures import MakeUnits
from tests.chaos.ledger import audit, waiting
from tests.chaos.outbox import ENVIRONMENT, UNITS, Subscription, audit_deliveries, drained
from tests.chaos.units import Units
from tests.webhook_receivers import Receiver

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(900)]

Show = Callable[[object], None]

SMALL = 5

QUIET_SECONDS = 1.5
"""Longest time between the moment the desk serves again and the next kill."""


def kill_at_random(desk: Units, kills: int, seed: int) -> Counter[str]:
    """Kill that often, each time once the desk answers again; return who was hit how often."""
    chance = random.Random(seed)
    hit: Counter[str] = Counter()
    names = [desk.names[number % len(desk.names)] for number in range(kills)]
    chance.shuffle(names)
    for name in names:
        desk.serving()
        time.sleep(chance.uniform(0.1, QUIET_SECONDS))
        until(lambda name=name: _struck(desk, name, chance), f"{name} to kill")
        hit[name] += 1
    return hit


def _struck(desk: Units, name: str, chance: random.Random) -> bool:
    """Kill a process of a unit; False where it has just ended by itself, or is not there yet."""
    pid = chance.choice(desk.pids(name))
    if pid not in processes_of(desk.data_dir):
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


FULL = [pytest.mark.full, pytest.mark.timeout(3_000)]


@pytest.mark.parametrize(
    ("kind", "kills", "count"),
    [
        pytest.param("sqlite", SMALL, 6, id="sqlite-small"),
        pytest.param("postgresql", SMALL, 6, id="postgresql-small", marks=pytest.mark.full),
        pytest.param("sqlite", 60, 50, id="sqlite-full", marks=FULL),
        pytest.param("postgresql", 60, 50, id="postgresql-full", marks=FULL),
    ],
)
def test_what_was_acknowledged_survives(
    make_units: MakeUnits,
    receiver: Receiver,
    request: pytest.FixtureRequest,
    show: Show,
    kind: str,
    kills: int,
    count: int,
) -> None:
    environment = dict(ENVIRONMENT)
    if kind == "postgresql":
        environment["APPLIANCE_DATABASE_URL"] = request.getfixturevalue("empty_postgresql_url")
    desk = make_units(environment=environment, names=UNITS)
    customers = Customers(desk, count)
    webhook = Subscription(desk, receiver)
    with customers.at_work():
        hit = kill_at_random(desk, kills, seed=kills)
        desk.wait_ready()
        time.sleep(QUIET_SECONDS)
    drained(desk)
    if kills > SMALL:
        until(lambda: not waiting(desk), "a final state of every message")
    ledger = audit(desk, customers.entries)
    audit_deliveries(ledger, desk, [webhook])
    show(f"{dict(hit)} killed; {ledger}; statuses {dict(customers.statuses)}")
    assert ledger.wrong == []
    assert customers.strange == []
    assert ledger.counts["acknowledged"] >= kills
    desk.stop()

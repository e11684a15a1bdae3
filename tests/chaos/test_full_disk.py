"""A disk without a byte left: nothing is promised that is not kept, reading goes on, and the desk
recovers by itself."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import pytest

from tests.appliance_process import until
from tests.chaos.customers import Customers
from tests.chaos.fixtures import MakeUnits
from tests.chaos.ledger import audit, waiting
from tests.chaos.outbox import ENVIRONMENT, UNITS, Subscription, audit_deliveries, drained
from tests.chaos.units import Units
from tests.webhook_receivers import Receiver

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]

DISK_MIB = 48
LITTLE = 64 * 1_024
"""Bytes of room in which a few transactions still fit, so that one fails half way."""

READ = ("/health", "/stats", "/conversations")


def served_again(desk: Units, customers: Customers) -> None:
    """Wait until a customer is answered who was not so far."""
    before = len(customers.acknowledged)
    until(lambda: len(customers.acknowledged) > before, f"an answer\n{desk.tail(3_000)}")


def test_a_full_disk_loses_nothing_and_needs_no_help(
    make_units: MakeUnits, receiver: Receiver, show: Callable[[object], None]
) -> None:
    desk = make_units(environment=ENVIRONMENT, names=UNITS, disk=DISK_MIB)
    assert desk.disk is not None
    customers = Customers(desk, 3)
    webhook = Subscription(desk, receiver)
    with customers.at_work(), desk.client("agent") as agent:
        served_again(desk, customers)
        for leave in (LITTLE, 0):
            desk.disk.fill(leave=leave)
            before = _refused(customers)
            until(lambda before=before: _refused(customers) > before + 3, "refusals")
        # What was stored can be read, and an administrator is told in one line.
        assert {agent.get(path).status_code for path in READ} == {200}
        _import_is_refused(desk)
        assert set(desk.restarts.values()) == {0}
        desk.disk.free()
        served_again(desk, customers)
        # Whoever starts on a full disk reads at once, and writes when there is space.
        desk.disk.fill()
        for unit in ("api", "worker"):
            desk.kill(desk.pid(unit), signal.SIGKILL)
        until(lambda: desk.restarts["api"] == 1, "another API")
        # Not "ready": whether its own small write finds room in the log is chance.
        until(lambda: desk.status("/health") == 200, f"a process that serves\n{desk.tail(3_000)}")
        assert {agent.get(path).status_code for path in READ} == {200}
        desk.disk.free()
        served_again(desk, customers)
        assert desk.restarts["api"] == 1
    drained(desk)
    until(lambda: not waiting(desk), "a final state of every message")
    ledger = audit(desk, customers.entries)
    audit_deliveries(ledger, desk, [webhook])
    show(f"{ledger}; statuses {dict(customers.statuses)}; restarts {desk.restarts}")
    assert ledger.wrong == []
    assert customers.strange == []
    desk.stop()


def _refused(customers: Customers) -> int:
    return customers.statuses[503] + customers.statuses[507]


def _import_is_refused(desk: Units) -> None:
    """An administrator is told in one line, and the articles stay what they were."""
    file = desk.folder / "more.json"
    article = {
        "id": "large",
        "question": "How large?",
        "answer": "So large. " * 4_000,
        "category": "General",
    }
    file.write_text(json.dumps({"faqs": [article]}))
    done = desk.cli("kb", "import", str(file))
    assert done.returncode == 1, done.stdout
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert [line.split(":")[0] for line in said] == ["error", "hint"], done.stderr
    assert desk.table("SELECT count(*) AS n FROM knowledge_entries WHERE id = 'large'")[0].n == 0

"""What receivers must have got: every event, under its own id, signed, however often."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from standardwebhooks.webhooks import Webhook as Verifier

from appliance.domain.events import EVENTS
from tests.appliance_process import until
from tests.chaos.ledger import Ledger
from tests.chaos.units import Units
from tests.webhook_receivers import Received, Receiver

ENVIRONMENT = {
    "APPLIANCE_WEBHOOK_ALLOW": "127.0.0.0/8:*",
    "APPLIANCE_WEBHOOK_TIMEOUT": "2",
    # The disk is filled to the last byte here; what the watermark does is tested elsewhere.
    "APPLIANCE_DISK_RESERVE_MIB": "0",
    # Many quick attempts: nothing dies of waiting for a test that breaks things for a minute.
    "APPLIANCE_WEBHOOK_RETRY_SECONDS": " ".join(["1"] * 50),
}

UNITS = ("engine", "api", "worker")


class Subscription:
    """A webhook on a running desk that hears of everything from now on."""

    def __init__(self, desk: Units, receiver: Receiver) -> None:
        self.receiver = receiver
        self._desk = desk
        with desk.client("admin") as admin:
            answer = admin.post("/webhooks/", json={"url": receiver.url, "events": EVENTS})
        assert answer.status_code == 201, answer.text
        made = answer.json()
        self.id: str = made["id"]
        self.secret: str = made["secret"]
        # Nobody is a customer yet, so whatever happens later is for this webhook too.
        self._before = {row.id for row in desk.table("SELECT id FROM analytics_events")}

    def expected(self) -> set[str]:
        """Ids of the events since, of those that are published."""
        rows = self._desk.table("SELECT id, type FROM analytics_events")
        return {row.id for row in rows if row.type in EVENTS} - self._before

    def has_all(self) -> bool:
        """Whether every event so far arrived."""
        return self.expected() <= self.receiver.counts.keys()

    def delivered(self) -> int:
        """How many deliveries count as done."""
        done = (
            "SELECT count(*) AS n FROM webhook_deliveries"
            " WHERE webhook_id = :id AND state = 'delivered'"
        )
        count: int = self._desk.table(done, id=self.id)[0].n
        return count


def drained(desk: Units) -> None:
    """Wait until nothing is due any more."""
    open_ones = "SELECT count(*) AS n FROM webhook_deliveries WHERE state IN ('pending', 'sending')"
    until(lambda: desk.table(open_ones)[0].n == 0, f"an empty outbox\n{desk.tail(3_000)}")


def audit_deliveries(ledger: Ledger, desk: Units, subscriptions: Iterable[Subscription]) -> None:
    """Add to the ledger what arrived, once the outbox is drained."""
    for each in subscriptions:
        expected, counts = each.expected(), each.receiver.counts
        rows = desk.table(
            "SELECT event_id, state FROM webhook_deliveries WHERE webhook_id = :id", id=each.id
        )
        ledger.counts["events"] += len(expected)
        ledger.counts["delivered"] += len(expected & counts.keys())
        ledger.counts["duplicates"] += counts.total() - len(counts)
        ledger.expect(expected <= counts.keys(), f"lost: {sorted(expected - counts.keys())}")
        ledger.expect(counts.keys() <= expected, f"untrue: {sorted(counts.keys() - expected)}")
        told = {(row.event_id, row.state) for row in rows}
        wanted = {(event, "delivered") for event in expected}
        ledger.expect(told == wanted and len(rows) == len(wanted), f"outbox: {told ^ wanted}")
        bodies: dict[str, set[bytes]] = {}
        for received in each.receiver.received:
            bodies.setdefault(received.event_id, set()).add(received.body)
        several = [event for event, found in bodies.items() if len(found) > 1]
        ledger.expect(several == [], f"one id, several bodies: {several}")
        unsigned = [got.event_id for got in each.receiver.received if not _signed(got, each.secret)]
        ledger.expect(unsigned == [], f"wrong signatures: {unsigned}")


def _signed(received: Received, secret: str) -> bool:
    """By the official library, whenever it was: a run may take longer than its tolerance, and its
    clock may have been moved."""
    moment = datetime.fromtimestamp(int(received.headers["webhook-timestamp"]), UTC)
    wanted = Verifier(secret).sign(received.event_id, moment, received.body.decode())
    return wanted in received.headers["webhook-signature"].split()

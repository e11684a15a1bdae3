"""The delivery loop: claims what is due, sends it, writes down what came of it.

Woken by hints and by the clock. Attempts run side by side, a few to each webhook and without a
common limit, so that a receiver that hangs holds up nobody but itself; how many webhooks there may
be bounds the whole. Nothing is kept in memory that the database does not know.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol, TypeVar

from structlog.contextvars import bound_contextvars

from appliance.domain import policy
from appliance.domain.events import TEST_EVENT
from appliance.errors import ApplianceError, StorageUnavailable
from appliance.jobs.schedule import Schedule
from appliance.jobs.sending import Sent
from appliance.logs import get_logger
from appliance.storage import Database, Records, utc_now
from appliance.storage.deliveries import Claimed
from appliance.storage.records import Attempt, DeliveryState, DisabledReason, Endpoint, Worker

log = get_logger()

T = TypeVar("T")

GONE: Final = 410
"""What a receiver answers that wants no more."""
STORE_PAUSE: Final = 1.0
"""Between two tries to write down an outcome, in seconds."""
SHORTEST_PAUSE: Final = 0.02
SWITCHED_OFF: Final = "The webhook is switched off."
WORKERS_KEPT: Final = timedelta(days=1)


class Send(Protocol):
    """One attempt; see ``jobs.sending``."""

    async def __call__(
        self, endpoint: Endpoint, event_id: str, body: bytes, now: datetime
    ) -> Sent: ...


class Deliverer:
    """One worker's part in delivering.

    :param place: what the ids of this worker and of those before it on this machine begin with;
        whoever makes this one knows that they are dead.
    :param clock: may jump; only what is written into the database goes by it.
    """

    def __init__(
        self,
        database: Database,
        send: Send,
        schedule: Schedule,
        worker: Worker,
        *,
        place: str,
        clock: Callable[[], datetime] = utc_now,
        well: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._send = send
        self._schedule = schedule
        self._worker = worker
        self._place: str | None = place
        self._clock = clock
        self._well = well
        self._woken = asyncio.Event()
        self._stopping = False
        self._under_way: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_sweep = 0.0

    def wake(self) -> None:
        """Look now. Called on the event loop."""
        self._woken.set()

    def stop(self) -> None:
        """Claim nothing more; ``run`` returns."""
        self._stopping = True
        self._woken.set()

    async def run(self) -> None:
        """Deliver until stopped. Trouble with the database is waited out."""
        while not self._stopping:
            self._woken.clear()
            pause = policy.WEBHOOK_SWEEP_SECONDS
            try:
                if time.monotonic() >= self._next_sweep:
                    await self.sweep()
                await self.look()
                pause = await self._pause()
            except ApplianceError as error:
                log.warning("outbox_unreachable", detail=error.detail)
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def sweep(self) -> None:
        """Show that this worker lives, and take back what dead ones held."""
        now, place = self._clock(), self._place

        def work(records: Records) -> int:
            records.workers.beat(replace(self._worker, seen_at=now))
            records.workers.forget(now - WORKERS_KEPT)
            return records.deliveries.release(now, policy.WEBHOOK_LEASE_SECONDS, place=place)

        lost = await self._database.write(work)
        self._place = None
        self._next_sweep = time.monotonic() + policy.WEBHOOK_SWEEP_SECONDS
        if lost:
            log.warning("deliveries_taken_back", count=lost)
        self._well()

    async def look(self) -> int:
        """Begin to send what is due, as far as there is room. How many were begun."""
        now = self._clock()
        waiting = await self._database.read(lambda records: records.deliveries.waiting(now))
        room = {each: policy.WEBHOOK_AT_ONCE - self._under_way[each] for each in waiting}
        if not any(free > 0 for free in room.values()):
            return 0

        def work(records: Records) -> list[Claimed]:
            return [
                claimed
                for webhook_id, free in room.items()
                if free > 0
                for claimed in records.deliveries.claim(
                    self._worker.id,
                    now,
                    policy.WEBHOOK_LEASE_SECONDS,
                    free,
                    webhook_id=webhook_id,
                )
            ]

        claimed = await self._database.write(work)
        for each in claimed:
            self._begin(each)
        return len(claimed)

    async def drain(self, seconds: float) -> None:
        """Wait for the attempts under way, then leave. What does not end in time is taken up by the
        next worker."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        late = [task for task in self._tasks if not task.done()]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        await self._database.write(lambda records: records.workers.leave(self._worker.id))

    async def prune(self, keep: timedelta) -> int:
        """Remove what was finished longer ago than that. Its number."""
        before = self._clock() - keep
        count = await self._database.write(lambda records: records.deliveries.prune(before))
        log.info("deliveries_pruned", count=count)
        return count

    # --- one delivery ----------------------------------------------------------------------------

    def _begin(self, claimed: Claimed) -> None:
        webhook_id = claimed.endpoint.id
        self._under_way[webhook_id] += 1
        task = asyncio.create_task(self._deliver(claimed))
        self._tasks.add(task)

        def ended(_: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._under_way[webhook_id] -= 1
            if not self._under_way[webhook_id]:
                del self._under_way[webhook_id]
            self._woken.set()

        task.add_done_callback(ended)

    async def _deliver(self, claimed: Claimed) -> None:
        delivery, endpoint = claimed.delivery, claimed.endpoint
        with bound_contextvars(
            event_id=delivery.event_id,
            type=delivery.event_type,
            webhook=endpoint.id,
            delivery=delivery.id,
            attempt=delivery.attempts,
        ):
            try:
                if not endpoint.active and delivery.event_type != TEST_EVENT:
                    await self._kept(partial(_bury, claimed, self._clock()))
                    log.info("webhook_dead", error=SWITCHED_OFF)
                    return
                started = self._clock()
                try:
                    sent = await self._send(
                        endpoint, delivery.event_id, delivery.body.encode(), started
                    )
                except Exception:
                    # Not written down it would be tried for ever: only failures that count end.
                    log.error("delivery_failed", exc_info=True)
                    sent = Sent(None, 0.0, "internal: the attempt could not be made")
                await self._write_down(claimed, _attempt(delivery.attempts, started, sent), sent)
            except ApplianceError as error:
                # Its lease will end, and it is sent again.
                log.error("outcome_not_kept", detail=error.detail)
            except Exception:
                log.error("delivery_failed", exc_info=True)

    async def _write_down(self, claimed: Claimed, attempt: Attempt, sent: Sent) -> None:
        now = self._clock()
        state, due = self._verdict(claimed, sent, now)

        def work(records: Records) -> tuple[bool, DisabledReason | None]:
            ours = records.deliveries.finish(claimed, attempt, state, now, next_attempt_at=due)
            return ours, self._judge(records, claimed, sent, now) if ours else None

        ours, disabled = await self._kept(work)
        told = {"status": sent.status, "seconds": round(sent.duration, 3)}
        if not ours:
            log.warning("webhook_lease_lost", **told)
        elif state == "delivered":
            log.info("webhook_delivered", **told)
        else:
            again = None if due is None else due.isoformat()
            log.info(f"webhook_{'retry' if due else 'dead'}", **told, error=sent.error, due=again)
        if disabled is not None:
            log.warning("webhook_disabled", reason=disabled)

    def _verdict(
        self, claimed: Claimed, sent: Sent, now: datetime
    ) -> tuple[DeliveryState, datetime | None]:
        if sent.delivered:
            return "delivered", None
        # Whoever presses the test button looks now, not in three days.
        final = sent.status == GONE or claimed.delivery.event_type == TEST_EVENT
        pause = self._schedule.pause(claimed.delivery.failures + 1, sent.retry_after)
        if final or pause is None:
            return "dead", None
        return "pending", now + timedelta(seconds=pause)

    def _judge(
        self, records: Records, claimed: Claimed, sent: Sent, now: datetime
    ) -> DisabledReason | None:
        """What an attempt means for the webhook itself; the reason if that switched it off."""
        webhook_id = claimed.endpoint.id
        if sent.delivered:
            records.webhooks.succeeded(webhook_id)
            return None
        reason: DisabledReason
        if sent.status == GONE:
            reason = "gone"
        elif claimed.delivery.event_type != TEST_EVENT and self._schedule.gives_up(
            records.webhooks.failed(webhook_id, now), now
        ):
            reason = "failing"
        else:
            return None
        if not records.webhooks.disable(webhook_id, reason, now):
            return None
        told = {"webhook_id": webhook_id, "reason": reason}
        records.events.add("webhook.disabled", data=told)
        records.audit.add("appliance", "webhook.disable", webhook_id, {"reason": reason})
        return reason

    async def _kept(self, work: Callable[[Records], T]) -> T:
        """Write it, with patience for a database that is away for a moment."""
        deadline = time.monotonic() + policy.WEBHOOK_LEASE_SECONDS
        while True:
            try:
                return await self._database.write(work)
            except StorageUnavailable:
                if self._stopping or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(STORE_PAUSE)

    async def _pause(self) -> float:
        """Seconds until there is something to do without a hint."""
        now = self._clock()
        due = await self._database.read(lambda records: records.deliveries.next_due(now))
        sweep = max(0.0, self._next_sweep - time.monotonic())
        until_due = sweep if due is None else (due - self._clock()).total_seconds()
        return max(SHORTEST_PAUSE, min(sweep, until_due))


def _bury(claimed: Claimed, now: datetime, records: Records) -> None:
    records.deliveries.finish(claimed, None, "dead", now, error=SWITCHED_OFF)


def _attempt(number: int, started: datetime, sent: Sent) -> Attempt:
    # PostgreSQL stores no zero bytes in a text.
    said = sent.response.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    error = sent.error if sent.delivered or sent.error else f"status {sent.status}"
    return Attempt(
        number=number,
        started_at=started,
        duration_ms=round(sent.duration * 1000),
        status=sent.status,
        error=error,
        response=said[: policy.WEBHOOK_RESPONSE_KEPT] or None,
    )

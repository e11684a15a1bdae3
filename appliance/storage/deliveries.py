"""The outbox: what still has to reach receivers, who is at it, and what came of it.

A delivery is written in the transaction of the change it tells of. A worker claims what is due for
a while (a lease), sends it, and writes down the outcome if the lease is still its own. A worker
that dies leaves leases that end, and others take over: nothing is lost, and what arrives twice
carries the same event id.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    delete,
    false,
    func,
    insert,
    or_,
    select,
    true,
    update,
)

from appliance.storage.records import Attempt, Delivery, DeliveryState, Endpoint
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import webhook_attempts as attempts
from appliance.storage.tables import webhook_deliveries as deliveries
from appliance.storage.tables import webhooks
from appliance.storage.types import new_id, utc_now

_COLUMNS = columns_for(Delivery, deliveries)
_ATTEMPT = columns_for(Attempt, attempts)
_ENDPOINT = columns_for(Endpoint, webhooks)
_c = deliveries.c

LOST = "The worker ended before it knew the outcome."
DEAD: tuple[DeliveryState, ...] = ("dead",)
FINISHED: tuple[DeliveryState, ...] = ("delivered", "dead")


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is this worker's to send, and where to."""

    delivery: Delivery
    endpoint: Endpoint
    worker: str


class DeliveryRepository(Repository):
    """Deliveries and their attempts.

    ``queued`` counts those made due in this transaction, for which a worker should be woken once it
    is committed; ``written`` are the events among them, with the number of their deliveries.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.queued = 0
        self.written: list[tuple[str, str, int]] = []

    def add(
        self,
        webhook_ids: Collection[str],
        event_id: str,
        event_type: str,
        body: str,
        *,
        user_id: str | None = None,
    ) -> Sequence[str]:
        """One delivery of the event for each webhook, due at once; their ids, in that order."""
        ids = {webhook_id: new_id() for webhook_id in webhook_ids}
        if ids:
            now = utc_now()
            shared = {
                "event_id": event_id,
                "event_type": event_type,
                "user_id": user_id,
                "body": body,
                "state": "pending",
                "attempts": 0,
                "failures": 0,
                "created_at": now,
            }
            self._connection.execute(
                insert(deliveries),
                [{**shared, "id": ids[each], "webhook_id": each} for each in ids],
            )
            self.queued += len(ids)
            self.written.append((event_id, event_type, len(ids)))
        return list(ids.values())

    # --- a worker's way --------------------------------------------------------------------------

    def waiting(self, now: datetime) -> Sequence[str]:
        """Ids of the webhooks that have something due."""
        statement = select(_c.webhook_id).where(_c.state == "pending", _due(now)).distinct()
        return list(self._connection.scalars(statement))

    def claim(
        self,
        worker: str,
        now: datetime,
        lease_seconds: float,
        limit: int,
        *,
        webhook_id: str | None = None,
    ) -> Sequence[Claimed]:
        """Take up to that many due deliveries, longest due first, for ``lease_seconds``; rivals get
        others.

        :param worker: an id that no other process has or had.
        """
        chosen = select(_c.id).where(_c.state == "pending", _due(now))
        if webhook_id is not None:
            chosen = chosen.where(_c.webhook_id == webhook_id)
        order = (_c.next_attempt_at.nulls_first(), _c.created_at, _c.id)
        chosen = chosen.order_by(*order).limit(limit)
        statement = (
            update(deliveries)
            .where(_c.id.in_(self._locked(chosen)))
            .values(
                state="sending",
                attempts=_c.attempts + 1,
                lease_owner=worker,
                lease_expires_at=now + timedelta(seconds=lease_seconds),
            )
        )
        claimed = self._all(Delivery, statement.returning(*_COLUMNS))
        claimed.sort(key=lambda each: (each.created_at, each.id))
        wanted = {each.webhook_id for each in claimed}
        found = self._all(Endpoint, select(*_ENDPOINT).where(webhooks.c.id.in_(wanted)))
        endpoints = {each.id: each for each in found}
        return [Claimed(each, endpoints[each.webhook_id], worker) for each in claimed]

    def finish(
        self,
        claimed: Claimed,
        attempt: Attempt | None,
        state: DeliveryState,
        now: datetime,
        *,
        next_attempt_at: datetime | None = None,
        error: str | None = None,
    ) -> bool:
        """Write down how an attempt ended, if the lease is still ours; False, and nothing written,
        when it is not.

        :param attempt: None when none was made: it is then given back, or dies of ``error``.
        :param state: ``delivered`` or ``dead``, or ``pending`` to be tried again at
            ``next_attempt_at``, None for at once.
        """
        delivery = claimed.delivery
        failed = attempt is not None and state != "delivered"
        values: dict[str, object] = {
            "state": state,
            "lease_owner": None,
            "lease_expires_at": None,
            "next_attempt_at": next_attempt_at if state == "pending" else None,
            "finished_at": now if state in FINISHED else None,
            "failures": _c.failures + 1 if failed else _c.failures,
        }
        if attempt is None:
            values |= {"attempts": _c.attempts - 1, "last_error": error}
        else:
            values |= {"response_status": attempt.status, "last_error": attempt.error}
        statement = (
            update(deliveries)
            .where(
                _c.id == delivery.id,
                _c.state == "sending",
                _c.lease_owner == claimed.worker,
                _c.attempts == delivery.attempts,
            )
            .values(values)
        )
        if not self._connection.execute(statement).rowcount:
            return False
        if attempt is not None:
            self._add_attempts([(delivery.id, attempt)])
        return True

    def release(self, now: datetime, lease_seconds: float, *, place: str | None = None) -> int:
        """Give back what dead workers held. Its number.

        :param place: whose workers' ids begin so are known to be dead, whatever their leases say.

        A lease that ends later than one taken now would have been taken before the clock was set
        back: waiting for it could take as long as the clock was moved.
        """
        over = or_(
            _c.lease_expires_at <= now,
            _c.lease_expires_at > now + timedelta(seconds=lease_seconds),
            false() if place is None else _c.lease_owner.startswith(place, autoescape=True),
        )
        chosen = select(_c.id).where(_c.state == "sending", over)
        statement = (
            update(deliveries)
            .where(_c.id.in_(self._locked(chosen)))
            .values(
                state="pending",
                lease_owner=None,
                lease_expires_at=None,
                next_attempt_at=None,
                response_status=None,
                last_error=LOST,
            )
            .returning(_c.id, _c.attempts)
        )
        lost = self._connection.execute(statement).all()
        self._add_attempts(
            [(row.id, Attempt(row.attempts, now, None, None, LOST, None)) for row in lost]
        )
        return len(lost)

    def next_due(self, now: datetime) -> datetime | None:
        """When the next retry will be due that is not due yet; None when none waits."""
        waiting = select(func.min(_c.next_attempt_at)).where(
            _c.state == "pending", _c.next_attempt_at > now
        )
        found: datetime | None = self._connection.scalar(waiting)
        return found

    def prune(self, before: datetime) -> int:
        """Remove deliveries that were finished before then, with their attempts. Their number."""
        statement = delete(deliveries).where(_c.state.in_(FINISHED), _c.finished_at < before)
        return self._connection.execute(statement).rowcount

    # --- an administrator's way ------------------------------------------------------------------

    def get(self, delivery_id: str) -> Delivery | None:
        return self._first(Delivery, select(*_COLUMNS).where(_c.id == delivery_id))

    def list(
        self,
        limit: int,
        *,
        webhook_id: str | None = None,
        state: DeliveryState | None = None,
        event_id: str | None = None,
        before: Delivery | None = None,
    ) -> Sequence[Delivery]:
        """Newest first.

        :param before: the last one of the page before.
        """
        statement = select(*_COLUMNS).order_by(_c.created_at.desc(), _c.id.desc()).limit(limit)
        for column, wanted in (
            (_c.webhook_id, webhook_id),
            (_c.state, state),
            (_c.event_id, event_id),
        ):
            if wanted is not None:
                statement = statement.where(column == wanted)
        if before is not None:
            earlier = and_(_c.created_at == before.created_at, _c.id < before.id)
            statement = statement.where(or_(_c.created_at < before.created_at, earlier))
        return self._all(Delivery, statement)

    def attempts(self, delivery_id: str) -> Sequence[Attempt]:
        """In the order in which they were made."""
        statement = select(*_ATTEMPT).where(attempts.c.delivery_id == delivery_id)
        return self._all(Attempt, statement.order_by(attempts.c.number))

    def requeue(self, delivery_id: str) -> Delivery | None:
        """Send it again now, whatever became of it, with all its attempts before it. One that is
        under way stays as it is; None when there is none."""
        self._requeue(_c.id == delivery_id)
        return self.get(delivery_id)

    def requeue_between(
        self,
        since: datetime,
        until: datetime,
        *,
        webhook_id: str | None = None,
        states: Collection[DeliveryState] = DEAD,
    ) -> int:
        """Send again what was made from ``since`` on and before ``until``. Its number."""
        made = and_(_c.created_at >= since, _c.created_at < until, _c.state.in_(states))
        ours = true() if webhook_id is None else _c.webhook_id == webhook_id
        return self._requeue(and_(made, ours))

    def counts(self) -> dict[DeliveryState, int]:
        """How many there are in each state."""
        rows = self._connection.execute(select(_c.state, func.count()).group_by(_c.state))
        known: dict[DeliveryState, int] = {"pending": 0, "sending": 0, "delivered": 0, "dead": 0}
        known.update((row[0], row[1]) for row in rows)
        return known

    def forget_user(self, user_id: str) -> None:
        """Delete what tells of a user, that which is still due as well: it would tell others of
        somebody the desk no longer knows, and lead them to nothing."""
        self._connection.execute(delete(deliveries).where(_c.user_id == user_id))

    # --- shared ----------------------------------------------------------------------------------

    def _requeue(self, which: ColumnElement[bool]) -> int:
        statement = (
            update(deliveries)
            .where(which, _c.state != "sending")
            .values(state="pending", failures=0, next_attempt_at=None, finished_at=None)
        )
        number = self._connection.execute(statement).rowcount
        self.queued += number
        return number

    def _locked(self, chosen: Select[tuple[str]]) -> Sequence[str]:
        """The ids chosen, but for those that a rival is about to change, held until the commit.

        A statement of its own: PostgreSQL may run a subselect of an UPDATE more than once, and each
        time it skips what the time before locked, which takes more than was asked for.
        """
        held = chosen.with_for_update(skip_locked=True)
        return list(self._connection.scalars(held))

    def _add_attempts(self, made: Sequence[tuple[str, Attempt]]) -> None:
        if made:
            self._connection.execute(
                insert(attempts),
                [
                    {
                        "id": new_id(),
                        "delivery_id": delivery_id,
                        **{column.name: getattr(attempt, column.name) for column in _ATTEMPT},
                    }
                    for delivery_id, attempt in made
                ],
            )


def _due(now: datetime) -> ColumnElement[bool]:
    return or_(_c.next_attempt_at.is_(None), _c.next_attempt_at <= now)

"""The one bridge between the async core and blocking SQL, and the unit of work: one call, one
transaction."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

import msgspec
from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError

from appliance.domain.once import CURRENT, Claim
from appliance.errors import ApplianceError, StorageUnavailable, UnderWay
from appliance.logs import get_logger
from appliance.metrics import Metrics
from appliance.storage import migrate
from appliance.storage.accounts import AccountRepository
from appliance.storage.answer_records import AnswerRecordRepository
from appliance.storage.audit import AuditRepository
from appliance.storage.conversations import ConversationRepository
from appliance.storage.corrections import ExampleRepository
from appliance.storage.deliveries import DeliveryRepository
from appliance.storage.engines import PATIENCE, Access, open_engine, parse_url, sqlite_file
from appliance.storage.events import EventRepository
from appliance.storage.failures import passing, raise_translated
from appliance.storage.feedback import FeedbackRepository
from appliance.storage.golden import GoldenRepository
from appliance.storage.health import HealthRepository
from appliance.storage.heartbeats import HeartbeatRepository
from appliance.storage.idempotency import IdempotencyRepository
from appliance.storage.keys import KeyRepository
from appliance.storage.knowledge import KnowledgeRepository
from appliance.storage.messages import MessageRepository
from appliance.storage.quarantine import QuarantineRepository
from appliance.storage.sessions import SessionRepository
from appliance.storage.stats import StatsRepository
from appliance.storage.tables import CONTENT_CHARS
from appliance.storage.users import UserRepository
from appliance.storage.webhooks import WebhookRepository
from appliance.storage.workers import ServedModelRepository, WorkerRepository

T = TypeVar("T")

ATTEMPTS = 6
"""How often a transaction that met a deadlock or a lock is tried before the caller hears of it."""

FIRST_PAUSE = 0.02
"""Longest pause before the second attempt, in seconds; it doubles with each."""

READERS = 4
WRITERS = 8

log = get_logger()


class Records:
    """All repositories, on one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.users = UserRepository(connection)
        self.conversations = ConversationRepository(connection)
        self.messages = MessageRepository(connection)
        self.answers = AnswerRecordRepository(connection)
        self.feedback = FeedbackRepository(connection)
        self.deliveries = DeliveryRepository(connection)
        self.events = EventRepository(connection, self.deliveries)
        self.knowledge = KnowledgeRepository(connection)
        self.quarantine = QuarantineRepository(connection)
        self.examples = ExampleRepository(connection)
        self.golden = GoldenRepository(connection)
        self.keys = KeyRepository(connection)
        self.accounts = AccountRepository(connection)
        self.sessions = SessionRepository(connection)
        self.audit = AuditRepository(connection)
        self.stats = StatsRepository(connection)
        self.webhooks = WebhookRepository(connection)
        self.workers = WorkerRepository(connection)
        self.served_model = ServedModelRepository(connection)
        self.idempotency = IdempotencyRepository(connection)
        self.heartbeats = HeartbeatRepository(connection)
        self.health = HealthRepository(connection)


class Database:
    """What is remembered, reached from coroutines. Opens nothing until first used.

    ``read`` and ``write`` run ``work`` in a thread inside one transaction, which commits when
    ``work`` returns and leaves nothing behind when it raises. After a deadlock ``work`` runs again
    from the start, so it must change nothing but the database. A caller that is cancelled stops
    waiting; work that has begun still ends, one way or the other.

    :param wake: called after a commit that made webhook deliveries due. It must not wait and must
        not raise; nothing is lost without it.
    :raises SettingsError: the URL names no database we support, or one whose driver is not
        installed.
    """

    def __init__(
        self,
        url: str,
        metrics: Metrics | None = None,
        *,
        wake: Callable[[], None] | None = None,
    ) -> None:
        metrics = metrics or Metrics()
        parsed = parse_url(url)
        self._wake = wake
        # SQLite has one writer at a time. Queueing for it in one thread is fair; SQLite's own
        # waiting is a lottery that the unlucky lose after ten seconds.
        writers = WRITERS if sqlite_file(parsed) is None else 1
        self._reading = _Lane(parsed, Access.READ, READERS, metrics)
        self._writing = _Lane(parsed, Access.WRITE, writers, metrics)

    async def write(self, work: Callable[[Records], T]) -> T:
        """Run ``work`` in a transaction that may change things.

        :raises StorageUnavailable: the database cannot be used now. When a commit itself failed,
            whether it happened is unknown.
        :raises Conflict: the change breaks a rule of the tables.
        :raises InvalidInput: a value cannot be stored, as text with a zero byte in PostgreSQL.
        """

        def working(connection: Connection) -> tuple[T, DeliveryRepository]:
            records = Records(connection)
            return work(records), records.deliveries

        done, outbox = await self._writing.run(working)
        for event_id, event_type, count in outbox.written:
            log.info("event_queued", event_id=event_id, type=event_type, webhooks=count)
        if outbox.queued and self._wake is not None:
            self._wake()
        return done

    async def answer(self, work: Callable[[Records], T], *, told_once: bool = False) -> T:
        """``write``, for work whose result is the answer to the request: where that came with an
        Idempotency-Key, the answer is kept in the same transaction, so that a crash right behind it
        cannot make a retry change anything twice.

        :param told_once: the answer holds a secret: kept is only that it was given.
        :raises StorageUnavailable, Conflict, InvalidInput: as ``write``.
        :raises UnderWay: it took longer than the request's lease, and somebody else took over.
        """
        claim = CURRENT.get()
        if claim is None:
            return await self.write(work)

        def whole(records: Records) -> T:
            result = work(records)
            _keep(records, claim, None if told_once else result)
            return result

        result = await self.write(whole)
        claim.kept = True
        return result

    async def read(self, work: Callable[[Records], T]) -> T:
        """Run ``work`` on one snapshot of the database, which refuses changes.

        :raises StorageUnavailable: the database cannot be used now.
        """
        return await self._reading.run(lambda connection: work(Records(connection)))

    async def check(self) -> None:
        """Return when the database can be read and has the form this code expects.

        :raises StorageUnavailable: says what is wrong and what to do.
        """
        await self._reading.run(migrate.require_head)

    async def aclose(self) -> None:
        """Let running work end, then close every connection. Later calls raise
        StorageUnavailable."""
        await asyncio.to_thread(self._reading.close)
        await asyncio.to_thread(self._writing.close)


def _keep(records: Records, claim: Claim, result: object | None) -> None:
    """Keep what was answered; without a result, that something was.

    :raises UnderWay: whoever took the request over answers it, so the change has to go.
    """
    once = claim.once
    body = None if result is None else msgspec.json.encode(result).decode()
    kept = records.idempotency.answered(
        once.id,
        claim.holder,
        once.status,
        body if body is not None and len(body) <= CONTENT_CHARS else None,
        message_id=getattr(result, "message_id", None),
        conversation_id=getattr(result, "conversation_id", None),
    )
    if not kept:
        raise UnderWay


class _Lane:
    """An engine and the threads that use it, one connection for each."""

    def __init__(self, url: URL, access: Access, width: int, metrics: Metrics) -> None:
        self._kind = access.name.lower()
        self._metrics = metrics
        self._engine = open_engine(url, access, width)
        self._threads = ThreadPoolExecutor(width, f"storage-{self._kind}")

    async def run(self, work: Callable[[Connection], T]) -> T:
        # The context goes along, so that lines logged from the thread carry the query's id.
        context = copy_context()
        started = time.perf_counter()
        try:
            waiting = asyncio.get_running_loop().run_in_executor(
                self._threads, lambda: context.run(self._transact, work)
            )
        except RuntimeError as error:
            raise StorageUnavailable(
                "The database is closed.", hint="The process is stopping."
            ) from error
        under_way = self._metrics.storage_waiting.labels(self._kind)
        under_way.inc()
        try:
            return await waiting
        except ApplianceError as error:
            if error.status >= 500:
                self._metrics.storage_errors.labels(error.code).inc()
            raise
        finally:
            under_way.dec()
            spent = time.perf_counter() - started
            self._metrics.storage_seconds.labels(self._kind).observe(spent)

    def close(self) -> None:
        self._threads.shutdown()
        self._engine.dispose()

    def _transact(self, work: Callable[[Connection], T]) -> T:
        started = time.monotonic()
        attempt = 1
        while True:
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                # Whoever already waited for a lock as long as we are ready to wait has had the
                # patience.
                if (
                    not passing(error)
                    or attempt == ATTEMPTS
                    or time.monotonic() - started > PATIENCE
                ):
                    raise_translated(error)
            log.warning("storage_retry", attempt=attempt)
            self._metrics.storage_retries.inc()
            jitter = random.uniform(0.5, 1.0)  # noqa: S311 - keeps rivals apart, hides nothing
            time.sleep(jitter * FIRST_PAUSE * 2 ** (attempt - 1))
            attempt += 1

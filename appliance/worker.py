"""The worker: one process that delivers webhooks and does what is due at its hour.

It puts together what it needs itself: the whole appliance of ``bootstrap`` would load the graph and
the index of a desk that it never asks.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import time
import uuid
from datetime import timedelta
from typing import Final

from appliance.errors import Conflict
from appliance.jobs.consuming import Consumer
from appliance.jobs.deliver import Deliverer
from appliance.jobs.queue import Queue
from appliance.jobs.schedule import Schedule
from appliance.jobs.sending import Sender, receiver_guard, webhook_secrets
from appliance.jobs.tasks import Work
from appliance.logs import get_logger
from appliance.operations import notify
from appliance.operations.backup import exchange
from appliance.operations.locks import hold_lock
from appliance.operations.release import door
from appliance.settings import Settings
from appliance.storage import Database, utc_now
from appliance.storage.records import Worker

log = get_logger()

STOP_SECONDS: Final = 50.0
"""How long attempts under way may take after the order to stop; the unit's TimeoutStopSec is
longer."""
PRUNE_SECONDS: Final = 60.0


async def serve(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT.

    :raises Conflict: another worker serves this data folder.
    :raises SettingsError: the queue or the allow-list cannot be used.
    :raises StorageUnavailable: the database is not usable, or a restore was interrupted.
    """
    with hold_lock(settings.data_dir / "worker.lock") as free:
        if not free:
            raise Conflict(f"The worker of {settings.data_dir} is running already.")
        exchange.require_settled(settings)
        if not await _admitted():
            return
        database = Database(settings.resolved_database_url)
        try:
            await database.check()
            await _work(settings, database)
        finally:
            await database.aclose()


async def _admitted() -> bool:
    """Wait while the release is on trial: what it delivered could not be called back. False when
    the order to stop comes first."""
    if not door.is_shut():
        return True
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stopped.set)
    log.info("waits_for_trial")
    # Up, as far as the service manager is concerned: whether it works is seen when it may.
    notify.ready()
    try:
        return await door.wait_until_open(gives_up=stopped.is_set, meanwhile=notify.watchdog)
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def _work(settings: Settings, database: Database) -> None:
    announced = False

    def well() -> None:
        nonlocal announced
        consumer.look_after()
        if not announced:
            notify.ready()
            log.info("worker_ready", worker=worker.id)
            announced = True
        notify.watchdog()

    place = _place(settings)
    now = utc_now()
    worker = Worker(f"{place}{uuid.uuid4().hex}", socket.gethostname(), os.getpid(), now, now)
    deliverer = Deliverer(
        database,
        Sender(
            receiver_guard(settings), webhook_secrets(settings), timeout=settings.webhook_timeout
        ).send,
        Schedule(settings.webhook_retry_seconds, timedelta(days=settings.webhook_disable_days)),
        worker,
        place=place,
        well=well,
    )
    loop = asyncio.get_running_loop()

    def prune() -> None:
        keep = timedelta(days=settings.webhook_keep_days)
        asyncio.run_coroutine_threadsafe(deliverer.prune(keep), loop).result(PRUNE_SECONDS)

    consumer = Consumer(
        lambda: Queue(settings),
        Work(wake=lambda: loop.call_soon_threadsafe(deliverer.wake), prune=prune),
    )

    def stop() -> None:
        notify.stopping()
        deliverer.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    consuming = asyncio.create_task(consumer.run())
    # A queue that can never be read ends the worker with its reason; one that is away does not.
    consuming.add_done_callback(lambda task: stop() if _failed(task) else None)
    await deliverer.run()
    ordered = time.monotonic()
    if not consuming.done():
        consuming.cancel()
    await consumer.stop()
    await deliverer.drain(STOP_SECONDS - (time.monotonic() - ordered))
    log.info("worker_stopped")
    if _failed(consuming):
        await consuming


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


def _place(settings: Settings) -> str:
    """What the ids of this data folder's workers begin with. There is one worker at a time, by its
    lock, so that what older ones of the same place hold is free."""
    where = f"{socket.gethostname()}:{settings.data_dir}"
    return f"{hashlib.sha256(where.encode()).hexdigest()[:12]}:"

"""Huey's consumer inside a process that has an event loop: its threads take hints out of the queue,
the loop does the work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from huey.consumer import Consumer as HueyConsumer

from appliance.errors import ApplianceError
from appliance.jobs.queue import Queue
from appliance.jobs.tasks import Work, register
from appliance.logs import get_logger

log = get_logger()

POLL_FIRST: Final = 0.05
POLL_LAST: Final = 0.25
"""Pauses between looks into a queue that cannot wake its readers, in seconds."""
RETRY_SECONDS: Final = 10.0
"""Between two tries to reach a queue's server at the start."""
STOP_SECONDS: Final = 5


class _Threads(HueyConsumer):  # type: ignore[misc]
    """Huey's threads without its signal handling, which by default takes SIGTERM for the order to
    drop everything: the worker decides when they stop."""

    def _set_signal_handlers(self) -> None:
        return


class Consumer:
    """Takes tasks out of a queue until it is stopped.

    :param open_queue: opens it; raises an ``ApplianceError`` where trying again is no use.
    """

    def __init__(self, open_queue: Callable[[], Queue], work: Work) -> None:
        self._open = open_queue
        self._work = work
        self._threads: _Threads | None = None

    async def run(self) -> None:
        """Start, as soon as the queue can be reached.

        :raises ApplianceError: it never will be.
        """
        while True:
            try:
                queue = await asyncio.to_thread(self._open)
                break
            except ApplianceError:
                raise
            except Exception as error:  # every storage has its own
                log.warning("queue_unreachable", error=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
        register(queue, self._work)
        # In the thread that reads, which has connections of its own.
        queue.on_shutdown("close")(queue.close)
        self._threads = _Threads(
            queue,
            workers=1,
            periodic=True,
            initial_delay=POLL_FIRST,
            max_delay=POLL_LAST,
            # Periodic tasks go by the minute, and nothing else is ever scheduled.
            scheduler_interval=60,
            shutdown_timeout=STOP_SECONDS,
        )
        self._threads.start()

    def look_after(self) -> None:
        """Replace threads that died."""
        if self._threads is not None:
            self._threads.check_worker_health()

    async def stop(self) -> None:
        """Let the task under way end, and take no other."""
        if self._threads is not None:
            await asyncio.to_thread(self._threads.stop, graceful=True)

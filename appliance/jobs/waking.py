"""Hints to the worker that something is due, from whoever commits it. Whatever is wrong with the
queue must not fail a customer's query: putting in never waits and never raises.

Huey is imported at the first hint: with it come the clients of Redis and PostgreSQL, which most
commands of the command line never need.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from appliance.logs import get_logger
from appliance.settings import Settings

if TYPE_CHECKING:
    from appliance.jobs.queue import Queue

log = get_logger()


class Waker:
    """Tells a worker that something is due. Returns at once; a call made while another waits for
    its turn is told by that one.

    :param tell: puts the hint into the queue; may wait, may raise.
    :param done: called at the end, in the thread that told.
    """

    def __init__(
        self, tell: Callable[[], object], done: Callable[[], object] = lambda: None
    ) -> None:
        self._tell = tell
        self._done = done
        self._thread = ThreadPoolExecutor(1, "wake")
        self._lock = threading.Lock()
        self._waiting = False
        self._well = True

    def __call__(self) -> None:
        with self._lock:
            if self._waiting:
                return
            self._waiting = True
        try:
            self._thread.submit(self._run)
        except RuntimeError:
            return  # the process is stopping; the worker looks by itself

    def close(self) -> None:
        """Let the hint under way go out."""
        self._thread.submit(self._done)
        self._thread.shutdown(wait=True)

    def _run(self) -> None:
        with self._lock:
            # What becomes due from here on needs a hint of its own.
            self._waiting = False
        try:
            self._tell()
        except Exception as error:  # every storage has its own
            if self._well:
                log.warning("wake_up_failed", error=type(error).__name__)
            self._well = False
        else:
            self._well = True


def waker(settings: Settings) -> Waker:
    """What a process calls after a commit that made deliveries due. The queue is opened at the
    first hint: a server that is away must not keep a process from starting."""
    queue: Queue | None = None
    hint: Callable[[], None] | None = None

    def tell() -> None:
        nonlocal queue, hint
        if queue is None or hint is None:
            from appliance.jobs.queue import Queue
            from appliance.jobs.tasks import register

            queue = Queue(settings)
            hint = register(queue)
        hint()

    def close() -> None:
        if queue is not None:
            queue.close()

    return Waker(tell, close)

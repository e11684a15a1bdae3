"""The tasks that the queue names, in one place for those who put them in and those who do them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from huey import crontab

from appliance.jobs.queue import HINTS_MAX, Queue

PRUNE_AT = {"hour": "3", "minute": "17"}
"""When old deliveries are removed, in UTC."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker does for each task. Called from the queue's threads."""

    wake: Callable[[], object]
    prune: Callable[[], object]


def register(queue: Queue, work: Work | None = None) -> Callable[[], None]:
    """Name the tasks to the queue, and return what puts a hint to look at the outbox into it.

    :param work: who does them; None in a process that only puts in.
    """

    @queue.task(name="wake")  # type: ignore[untyped-decorator]
    def wake() -> None:
        if work is not None:
            work.wake()

    @queue.periodic_task(crontab(**PRUNE_AT), name="prune")  # type: ignore[untyped-decorator]
    def prune() -> None:
        if work is not None:
            work.prune()

    def hint() -> None:
        if queue.storage.queue_size() < HINTS_MAX:
            wake()

    return hint

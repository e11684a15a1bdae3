"""Processes that meet in one database, one of them halted at the worst moment, so that a race has
the same course each time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine, text

from appliance.storage import Database, Records
from appliance.storage.engines import Access, open_engine, parse_url

T = TypeVar("T")

PATIENCE = 10.0
"""How long a test waits for what should come at once, in seconds."""

_WAITING = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


class _Halted(Database):
    """A process that has done the work of a transaction and not committed it yet."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.done, self.go_on = threading.Event(), threading.Event()

    async def write(self, work: Callable[[Records], T]) -> T:
        def halting(records: Records) -> T:
            result = work(records)
            self.done.set()
            assert self.go_on.wait(PATIENCE)
            return result

        return await super().write(halting)


@asynccontextmanager
async def halted(
    url: str, act: Callable[[Database], Awaitable[T]]
) -> AsyncIterator[asyncio.Future[T]]:
    """Inside the block a process of its own has done ``act``, but for its commit, which comes with
    the end of the block.

    :param act: writes once.
    """
    database = _Halted(url)
    acting = asyncio.ensure_future(act(database))
    worked = asyncio.ensure_future(asyncio.to_thread(database.done.wait, PATIENCE))
    try:
        await asyncio.wait((acting, worked), return_when=asyncio.FIRST_COMPLETED)
        if acting.done():  # it failed, and says why
            await acting
        assert await worked
        yield acting
    finally:
        database.done.set()
        database.go_on.set()
        await asyncio.wait((acting,))
        await database.aclose()
    await acting


def uncommitted(
    url: str, work: Callable[[Records], T]
) -> AbstractAsyncContextManager[asyncio.Future[T]]:
    """``halted`` in a transaction of ``work``."""
    return halted(url, lambda database: database.write(work))


@asynccontextmanager
async def stopped(
    before: type[Any], method: str, acting: Coroutine[Any, Any, T]
) -> AsyncIterator[asyncio.Task[T]]:
    """Inside the block ``acting`` stands in the midst of its transaction: before it calls that
    method for the first time. Whoever calls it meanwhile is not stopped."""
    reached, go_on = threading.Event(), threading.Event()
    called = getattr(before, method)

    def slowly(*given: Any, **more: Any) -> Any:
        if not reached.is_set():
            reached.set()
            assert go_on.wait(PATIENCE)
        return called(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(before, method, slowly)
        task = asyncio.create_task(acting)
        try:
            assert await asyncio.to_thread(reached.wait, PATIENCE)
            yield task
        finally:
            go_on.set()
            await asyncio.wait((task,))
    await task


async def met(url: str, rival: asyncio.Future[Any]) -> None:
    """Return once ``rival`` waits for a lock of somebody else, or is done without.

    SQLite does not tell who waits. There the order makes no difference: writers take turns.
    """
    await asyncio.sleep(0)  # it begins
    if parse_url(url).get_backend_name() == "sqlite":
        return
    engine = open_engine(parse_url(url), Access.READ)
    deadline = time.monotonic() + PATIENCE
    try:
        while not rival.done() and not await asyncio.to_thread(_waits, engine):
            assert time.monotonic() < deadline, "it neither ends nor waits"
            await asyncio.sleep(0.01)
    finally:
        engine.dispose()


def _waits(engine: Engine) -> bool:
    with engine.begin() as connection:
        return bool(connection.scalar(_WAITING))


def impatient(postgresql_url: str) -> AbstractAsyncContextManager[Database]:
    """A process that should not have to wait for anybody's lock, and soon fails where it does."""
    url = parse_url(postgresql_url).update_query_dict({"options": "-c lock_timeout=1s"})
    return aclosing(Database(url.render_as_string(hide_password=False)))


def run(statement: Any) -> Callable[[Records], Any]:
    """The first value of what a statement finds, for looks that no repository offers."""
    return lambda records: records.events._connection.scalar(statement)

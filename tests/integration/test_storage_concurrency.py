"""Many writers at once, and writers that are killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from appliance.settings import HOME
from appliance.storage import Database, Records
from appliance.storage.engines import Access, open_engine, parse_url

THREADS, WRITES = 8, 50


def start_conversation(records: Records) -> str:
    records.users.ensure("ada")
    return records.conversations.create("ada", "key:1", "Help").id


def sequence(records: Records, conversation_id: str) -> list[int]:
    return [message.seq for message in records.messages.list(conversation_id)]


@pytest.mark.anyio
async def test_one_database_serves_many_writers(database: Database) -> None:
    conversation = await database.write(start_conversation)

    async def say(text: str) -> None:
        await database.write(
            lambda records: records.messages.add(conversation, "customer", text, "received")
        )

    await asyncio.gather(*(say(str(number)) for number in range(100)))
    found = await database.read(lambda records: records.messages.list(conversation))
    assert [message.seq for message in found] == list(range(1, 101))
    assert {message.content for message in found} == {str(number) for number in range(100)}


def test_many_writers_of_one_conversation_neither_fail_nor_collide(database_url: str) -> None:
    """Each thread has a ``Database`` of its own, so they meet in the database itself, as processes
    would.

    Each reads before it writes, which fails in SQLite when a transaction does not lock from its
    start.
    """
    runs: list[str] = []

    async def begin() -> str:
        database = Database(database_url)
        conversation = await database.write(start_conversation)
        await database.aclose()
        return conversation

    conversation = asyncio.run(begin())

    def answer_the_last(records: Records) -> None:
        runs.extend(last.id for last in records.messages.latest(conversation, 1))
        records.messages.add(conversation, "customer", "Hello", "received")

    async def write_many() -> None:
        database = Database(database_url)
        for _ in range(WRITES):
            await database.write(answer_the_last)
        await database.aclose()

    with ThreadPoolExecutor(THREADS) as threads:
        for writer in [threads.submit(asyncio.run, write_many()) for _ in range(THREADS)]:
            writer.result(timeout=60)

    async def read() -> list[int]:
        database = Database(database_url)
        found = await database.read(lambda records: sequence(records, conversation))
        await database.aclose()
        return found

    assert asyncio.run(read()) == list(range(1, THREADS * WRITES + 1))
    assert len(runs) < THREADS * WRITES, "a transaction had to be run again"


KILLED_INSIDE = """
import asyncio, sys, time
from appliance.storage import Database

def work(records):
    records.users.ensure("half")
    conversation = records.conversations.create("half", "key:1", "Half")
    records.messages.add(conversation.id, "customer", "x" * 60_000, "received")
    print("inside", flush=True)
    time.sleep(60)

asyncio.run(Database(sys.argv[1]).write(work))
"""

KILLED_SOMEWHERE = """
import asyncio, sys
from appliance.storage import Database

def work(records):
    records.users.ensure("ada")
    conversation = records.conversations.create("ada", "key:1", "Three")
    for _ in range(3):
        records.messages.add(conversation.id, "customer", "x" * 5_000, "received")
    return conversation.id

async def main():
    database = Database(sys.argv[1])
    while True:
        print(await database.write(work), flush=True)

asyncio.run(main())
"""


@contextmanager
def child(program: str, url: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, url], cwd=HOME, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def integrity(url: str) -> str:
    engine = open_engine(parse_url(url), Access.WRITE)
    with engine.begin() as connection:
        found = str(connection.exec_driver_sql("PRAGMA integrity_check").scalar_one())
    engine.dispose()
    return found


@pytest.mark.anyio
async def test_a_writer_killed_inside_a_transaction_leaves_no_half(database_url: str) -> None:
    with child(KILLED_INSIDE, database_url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "inside\n"
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    database = Database(database_url)
    await database.check()
    assert await database.read(lambda records: records.users.list(10)) == []
    # The dead writer's lock died with it.
    await database.write(lambda records: records.users.ensure("next"))
    await database.aclose()
    if database_url.startswith("sqlite"):
        assert integrity(database_url) == "ok"


@pytest.mark.anyio
@pytest.mark.parametrize("acknowledged", [1, 7, 20])
async def test_a_killed_writer_keeps_its_promises(sqlite_url: str, acknowledged: int) -> None:
    """Killed anywhere: what it reported as written is there, and every transaction is whole."""
    with child(KILLED_SOMEWHERE, sqlite_url) as process:
        assert process.stdout is not None
        promised = [process.stdout.readline().strip() for _ in range(acknowledged)]
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        promised += process.stdout.read().split()
    assert integrity(sqlite_url) == "ok"
    database = Database(sqlite_url)

    def found(records: Records) -> dict[str, list[int]]:
        kept = records.conversations.list(limit=1_000)
        return {conversation.id: sequence(records, conversation.id) for conversation in kept}

    kept = await database.read(found)
    assert set(promised) <= set(kept)
    assert len(kept) <= len(promised) + 1
    assert all(numbers == [1, 2, 3] for numbers in kept.values())
    await database.aclose()

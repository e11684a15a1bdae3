"""The worker as a real process: killed, stopped, without its queue, beside another one."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from appliance.domain.webhook_secrets import WebhookSecrets
from appliance.jobs.queue import FILE
from appliance.jobs.waking import Waker, waker
from appliance.operations.secrets import load_secret
from appliance.settings import Settings
from appliance.storage import Database, Records
from appliance.storage.deliveries import LOST
from appliance.storage.records import Delivery, Webhook
from tests.appliance_process import COMMAND, clean_environment, until
from tests.webhook_receivers import OK, Receiver, Reply

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(900)]

T = TypeVar("T")

UPDATED = "kb.updated"
SWEEP_PATIENCE = 60.0


class Desk:
    """What an API has, a database with a hand on the queue; and workers in their processes."""

    def __init__(self, folder: Path, database_url: str, **settings: str) -> None:
        self.folder = folder
        self._settings = {
            "APPLIANCE_DATA_DIR": str(folder),
            "APPLIANCE_DATABASE_URL": database_url,
            "APPLIANCE_WEBHOOK_ALLOW": "127.0.0.0/8:*",
            "APPLIANCE_WEBHOOK_RETRY_SECONDS": " ".join(["1"] * 20),
            **settings,
        }
        self.environment = clean_environment(**self._settings)
        self.settings = Settings(data_dir=folder, database_url=database_url)
        self.log = folder / "worker.log"
        self.secrets = WebhookSecrets(load_secret(folder, "webhooks"))
        self.stored = self.secrets.new()
        self.processes: list[subprocess.Popen[bytes]] = []

    def worker(self, **more: str) -> subprocess.Popen[bytes]:
        """A worker, once it works."""
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*COMMAND, "worker"], env=self.environment | more, stderr=log, stdout=log
            )
        self.processes.append(process)

        def ready() -> bool:
            assert process.poll() is None, self.log.read_text()
            return b"worker_ready" in self.log.read_bytes()[before:]

        until(ready, "a worker")
        return process

    def run(self, work: Callable[[Database], Any]) -> Any:
        """Use the database as an API would, hints included."""

        async def main() -> Any:
            wake: Waker = waker(self.settings)
            database = Database(self.settings.resolved_database_url, wake=wake)
            try:
                return await work(database)
            finally:
                await database.aclose()
                wake.close()

        return asyncio.run(main())

    def write(self, work: Callable[[Records], T]) -> T:
        done: T = self.run(lambda database: database.write(work))
        return done

    def read(self, work: Callable[[Records], T]) -> T:
        done: T = self.run(lambda database: database.read(work))
        return done

    def subscribe(self, receiver: Receiver) -> Webhook:
        receiver.secret = self.secrets.shown(self.stored)
        return self.write(
            lambda records: records.webhooks.add(receiver.url, [UPDATED], self.stored)
        )

    def happen(self, count: int) -> list[str]:
        """So many events, each acknowledged by a commit of its own."""

        async def work(database: Database) -> list[str]:
            return [
                await database.write(
                    lambda records, n=n: records.events.add(UPDATED, data={"version": n})
                )
                for n in range(count)
            ]

        found: list[str] = self.run(work)
        return found

    def deliveries(self) -> list[Delivery]:
        return list(self.read(lambda records: records.deliveries.list(10_000)))

    def settle(self) -> list[Delivery]:
        """Wait until everything is delivered."""

        def done() -> bool:
            counts = self.read(lambda records: records.deliveries.counts())
            return counts["pending"] == counts["sending"] == 0

        until(done, "everything delivered")
        found = self.deliveries()
        assert {each.state for each in found} == {"delivered"}
        return found

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@contextmanager
def desk_at(folder: Path, database_url: str, **settings: str) -> Iterator[Desk]:
    folder.mkdir(exist_ok=True)
    desk = Desk(folder, database_url, **settings)
    try:
        yield desk
    finally:
        desk.end()


@pytest.fixture
def desk(tmp_path: Path, sqlite_url: str) -> Iterator[Desk]:
    with desk_at(tmp_path / "desk", sqlite_url) as desk:
        yield desk


def test_a_worker_killed_in_the_middle_of_a_delivery_loses_nothing(desk: Desk) -> None:
    with Receiver(Reply(hang=600)) as receiver:
        desk.subscribe(receiver)
        worker = desk.worker()
        (event_id,) = desk.happen(1)
        until(lambda: receiver.received, "an attempt")
        worker.kill()
        worker.wait()
        assert [each.state for each in desk.deliveries()] == ["sending"]
        receiver.reply = OK
        # Its lease has two minutes to go; the next worker of the place knows that it is dead.
        began = time.monotonic()
        desk.worker()
        (done,) = desk.settle()
        assert receiver.counts == {event_id: 2}
        assert receiver.all_valid
        assert receiver.received[1].at - began < 100
    attempts = desk.read(lambda records: records.deliveries.attempts(done.id))
    assert [(each.number, each.status, each.error) for each in attempts] == [
        (1, None, LOST),
        (2, 200, None),
    ]


@pytest.mark.parametrize(
    ("kills", "events"), [(5, 40), pytest.param(60, 600, marks=pytest.mark.full)]
)
def test_random_kills_lose_no_event(
    tmp_path: Path, database_url: str, kills: int, events: int
) -> None:
    chance = random.Random(5)
    with desk_at(tmp_path / "desk", database_url) as desk, Receiver(Reply(hang=0.05)) as receiver:
        desk.subscribe(receiver)
        happened: list[str] = []
        ended = threading.Event()

        def write() -> None:
            for _ in range(events // 5):
                happened.extend(desk.happen(5))
                time.sleep(chance.random() / 10)
            ended.set()

        writing = threading.Thread(target=write)
        writing.start()
        for _ in range(kills):
            worker = desk.worker()
            time.sleep(chance.random())
            worker.kill()
            worker.wait()
        writing.join()
        desk.worker()
        desk.settle()
        lost = set(happened) - set(receiver.counts)
        more = sum(count - 1 for count in receiver.counts.values())
        ledger = f"{kills} kills: {len(happened)} events, {len(lost)} lost, {more} again"
        sys.stdout.write(ledger + "\n")
        assert len(happened) == events
        assert lost == set()
        assert receiver.all_valid


def test_a_queue_that_is_deleted_under_way_loses_nothing(desk: Desk) -> None:
    with Receiver() as receiver:
        desk.subscribe(receiver)
        desk.worker()
        happened = []
        for _ in range(4):
            happened += desk.happen(3)
            for file in desk.folder.glob(f"{FILE}*"):
                file.unlink()
        happened += desk.happen(3)
        desk.settle()
        assert set(receiver.counts) == set(happened)
    until(lambda: (desk.folder / FILE).exists(), "a new queue", patience=SWEEP_PATIENCE)


def test_what_no_hint_tells_of_is_found_by_looking(desk: Desk) -> None:
    with Receiver() as receiver:
        desk.subscribe(receiver)
        desk.worker()

        async def in_silence() -> str:
            database = Database(desk.settings.resolved_database_url)
            event_id = await database.write(
                lambda records: records.events.add(UPDATED, data={"version": 1})
            )
            await database.aclose()
            return event_id

        event_id = asyncio.run(in_silence())
        until(lambda: receiver.received, "the sweep", patience=SWEEP_PATIENCE)
        assert set(receiver.counts) == {event_id}


def test_sigterm_lets_a_delivery_end(desk: Desk) -> None:
    with Receiver(Reply(hang=2.0)) as receiver:
        desk.subscribe(receiver)
        worker = desk.worker()
        desk.happen(1)
        until(lambda: receiver.received, "an attempt")
        worker.terminate()
        assert worker.wait(60) == 0
        assert [each.state for each in desk.deliveries()] == ["delivered"]
    assert b"worker_stopped" in desk.log.read_bytes()
    assert desk.read(lambda records: records.workers.latest()) is None


def test_others_see_that_a_worker_lives(desk: Desk) -> None:
    worker = desk.worker()
    seen = desk.read(lambda records: records.workers.latest())
    assert seen is not None
    assert (seen.pid, seen.host) == (worker.pid, socket.gethostname())


def test_a_second_worker_of_a_data_folder_is_refused(desk: Desk) -> None:
    desk.worker()
    second = subprocess.run(
        [*COMMAND, "worker"], env=desk.environment, capture_output=True, text=True, timeout=60
    )
    assert second.returncode == 1
    assert "running already" in second.stderr


def test_a_worker_that_cannot_work_says_why(desk: Desk) -> None:
    done = subprocess.run(
        [*COMMAND, "worker"],
        env=desk.environment | {"APPLIANCE_QUEUE_URL": "redis://127.0.0.1:port"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "queue_url" in done.stderr.split("error: ")[1]
    assert "hint: " in done.stderr


def test_workers_on_two_machines_share_the_work(tmp_path: Path, postgresql_url: str) -> None:
    """Two data folders at one PostgreSQL, which carries the hints as well."""
    queue = postgresql_url.replace("+psycopg", "")
    with (
        desk_at(tmp_path / "one", postgresql_url, APPLIANCE_QUEUE_URL=queue) as one,
        desk_at(tmp_path / "two", postgresql_url, APPLIANCE_QUEUE_URL=queue) as two,
        Receiver(Reply(hang=0.05)) as receiver,
    ):
        one.settings = Settings(data_dir=one.folder, database_url=postgresql_url, queue_url=queue)
        one.subscribe(receiver)
        one.worker()
        two.worker()
        happened = one.happen(40)
        one.settle()
        assert receiver.counts == dict.fromkeys(happened, 1)
        for desk in (one, two):
            assert b"webhook_delivered" in desk.log.read_bytes(), desk.folder


def test_the_service_manager_is_told(desk: Desk) -> None:
    path = desk.folder / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(os.fspath(path))
        manager.settimeout(60)
        worker = desk.worker(NOTIFY_SOCKET=os.fspath(path))
        assert [manager.recv(100), manager.recv(100)] == [b"READY=1", b"WATCHDOG=1"]
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
        said = b""
        while said != b"STOPPING=1":
            said = manager.recv(100)


def test_the_worker_loads_no_model() -> None:
    """What delivers webhooks is small, and parses no weights."""
    code = "import sys, appliance.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "faiss", "onnxruntime", "sentence_transformers", "langgraph", "litestar"}
    assert not heavy & set(done.stdout.split())

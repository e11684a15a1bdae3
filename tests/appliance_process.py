"""Fixtures: whole appliances as real processes, with the embedded weights and the 30 starter
articles.

What takes long at a first start (a faster type of the weights, trained heads, embedded articles) is
made once a test session; every appliance starts from a copy of it, weights as hard links.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from appliance.settings import Settings
from tests.engine_process import link_weights
from tests.forked_command import run_forked

ROOT = Path(__file__).resolve().parent.parent
FAQS = ROOT / "kb" / "faqs.json"
COMMAND = (sys.executable, "-m", "appliance")
PATIENCE = 280.0
"""Longest wait for anything, in seconds: two busy cores are slow, but not that slow."""

Role = Literal["customer", "agent", "admin"]


def clean_environment(**settings: str) -> dict[str, str]:
    """This environment without anybody's own appliance in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("APPLIANCE_")}
    return kept | settings


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(holds: Callable[[], Any], what: str, *, patience: float = PATIENCE) -> Any:
    """Wait until ``holds()`` is true and return it."""
    deadline = time.monotonic() + patience
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {patience} s: {what}"
        time.sleep(0.05)


def read_events(lines: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """The events of a stream of server-sent events: name and decoded data."""
    event, data = "message", []
    for line in lines:
        if not line:
            if data:
                yield event, json.loads("\n".join(data))
            event, data = "message", []
        elif line.startswith("event:"):
            event = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))


def processes_of(data_dir: Path) -> dict[int, str]:
    """Command lines, by process id, of every process that was told to work in this data folder."""
    mark = f"APPLIANCE_DATA_DIR={data_dir}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:  # it ended while we looked
            continue
        if mark in environment and command:
            # Other people's command lines may hold any bytes.
            found[int(folder.name)] = command.decode(errors="replace").strip()
    return found


class ApplianceProcess:
    """A data folder of its own, and ``appliance up`` in it once started."""

    def __init__(self, prepared: Path | None, *, environment: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="desk-", dir="/tmp"))
        self.data_dir = self.folder / "data"
        self.sockets = Settings(data_dir=self.data_dir, runtime_dir=None).sockets
        self.log = self.folder / "log"
        self.out = self.folder / "out"
        self.port = 0
        self.keys: dict[Role, str] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = clean_environment(APPLIANCE_DATA_DIR=str(self.data_dir)) | (
            environment or {}
        )
        if prepared is not None:
            give_prepared(prepared, self.data_dir)

    @property
    def url(self) -> str:
        """Where its pages are, once it was started."""
        return f"http://127.0.0.1:{self.port}"

    # --- its command line ------------------------------------------------------------------------

    def cli(self, *arguments: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run a command in this data folder, from elsewhere than the checkout."""
        return run_forked(
            arguments, environment=self.environment, folder=self.folder, timeout=timeout
        )

    def cli_json(self, *arguments: str) -> Any:
        """Run a command that has to succeed; what it printed, decoded."""
        done = self.cli(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def fill(self) -> None:
        """Database, articles and a key for each role, made the way an administrator makes them."""
        self.cli_json("db", "upgrade")
        self.cli_json("kb", "import", str(FAQS))
        for role in ("customer", "agent", "admin"):
            self.keys[role] = self.cli_json("keys", "create", "--role", role)["key"]

    # --- its life --------------------------------------------------------------------------------

    def start(self, *, wait: bool = True, prefix: Sequence[str] = ()) -> None:
        """``appliance up``, behind ``prefix`` if given; later starts keep the first one's port."""
        self.port = self.port or free_port()
        self.environment["APPLIANCE_PORT"] = str(self.port)
        with self.log.open("ab") as log, self.out.open("ab") as out:
            self.process = subprocess.Popen(
                [*prefix, *COMMAND, "up"],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
            )
        if wait:
            self.wait_ready()

    def readiness(self) -> tuple[int, dict[str, Any]]:
        """Status and body of ``/ready``; status 0 where nobody listens."""
        try:
            answer = httpx.get(f"{self.url}/api/v1/ready", timeout=10.0, trust_env=False)
        except httpx.TransportError:
            return 0, {}
        return answer.status_code, answer.json()

    def wait_ready(self, engine: str = "ok") -> dict[str, Any]:
        """Wait until queries can be answered and the engine is in that state."""
        seen: list[Any] = [None]

        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"it ended:\n{self.log.read_text()}"
            seen[0] = status, body = self.readiness()
            return status == 200 and body["engine"] == engine

        try:
            until(ready, f"ready with engine {engine}")
        except AssertionError as error:
            raise AssertionError(f"{error}\nlast: {seen[0]}\n{self.log.read_text()}") from None
        body: dict[str, Any] = seen[0][1]
        return body

    def processes(self, ending: str = "") -> list[int]:
        """Ids of its processes; of those whose command ends so."""
        running = processes_of(self.data_dir).items()
        return [pid for pid, command in running if command.endswith(ending)]

    def processes_with(self, words: str) -> list[int]:
        """Ids of its processes whose command holds these words."""
        return [pid for pid, command in processes_of(self.data_dir).items() if words in command]

    def kill(self, pid: int, number: int) -> None:
        """Send a signal to one of its processes, and to no other that got the id since."""
        assert pid in processes_of(self.data_dir)
        os.kill(pid, number)

    @property
    def api(self) -> int:
        """The process id of the API."""
        return self._only(lambda: self.processes("-m appliance api"), "the API")

    @property
    def keeper(self) -> int:
        """The process id of the engine's keeper."""
        return self._only(lambda: self.processes("-m appliance engine"), "the keeper")

    @property
    def worker(self) -> int:
        """The process id of the worker."""
        return self._only(lambda: self.processes("-m appliance worker"), "the worker")

    @property
    def engine(self) -> int:
        """The process id of the engine in charge."""
        link = self.sockets / "engine.sock"

        # Read anew each time: just after a crash the link still names an engine that is gone.
        def in_charge() -> list[int]:
            return self.processes(f"--socket {self.sockets / link.readlink()}")

        return self._only(in_charge, "an engine behind its link")

    def _only(self, look: Callable[[], list[int]], what: str) -> int:
        found: list[int] = until(look, what)
        assert len(found) == 1, processes_of(self.data_dir)
        return found[0]

    def send_stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal to ``up`` alone, wait for its end, return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        self.process = None
        return status

    def stop(self) -> None:
        """Ctrl-C: everything ends well and nothing stays behind."""
        assert self.send_stop() == 0, self.log.read_text()
        assert processes_of(self.data_dir) == {}
        assert [path.name for path in self.sockets.iterdir() if path.name.endswith(".sock")] == []

    def clean(self) -> None:
        """End it whatever it is doing, and remove what it left."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for pid in processes_of(self.data_dir):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.sockets, ignore_errors=True)

    # --- what it says ----------------------------------------------------------------------------

    def client(self, role: Role | None = None, *, timeout: float = 120.0) -> httpx.Client:
        """A client of the API with the key of a role, or without one."""
        headers = {"Authorization": f"Bearer {self.keys[role]}"} if role else {}
        return httpx.Client(
            base_url=f"{self.url}/api/v1", headers=headers, timeout=timeout, trust_env=False
        )

    def ask(
        self,
        message: str,
        *,
        user: str = "customer-1",
        conversation: str | None = None,
        role: Role = "customer",
    ) -> dict[str, Any]:
        """Ask a question that has to be answered."""
        body = {"user_id": user, "message": message}
        if conversation is not None:
            body["conversation_id"] = conversation
        with self.client(role) as client:
            answer = client.post("/query", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def messages(self, conversation: str) -> list[dict[str, Any]]:
        """The messages of a conversation as an admin sees them."""
        with self.client("admin") as client:
            answer = client.get(f"/conversations/{conversation}/messages")
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    def rows(self, statement: str, *parameters: Any) -> list[Any]:
        """What the database file holds, read past the appliance."""
        file = f"file:{self.data_dir / 'appliance.db'}?mode=ro"
        with closing(sqlite3.connect(file, uri=True, timeout=30)) as connection:
            return connection.execute(statement, parameters).fetchall()

    def events(self, name: str, *, after: int = 0) -> list[dict[str, Any]]:
        """Lines of the log with that event, from a byte of the log on."""
        lines = self.log.read_bytes()[after:].decode(errors="replace").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [line for line in found if line.get("event") == name]


def give_prepared(prepared: Path, data_dir: Path) -> None:
    """Give a data folder what a first start makes: weights and the embedding model's graph as
    links, heads and index as copies."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    link_weights(prepared, data_dir)
    link_graph(prepared, data_dir)
    for name in ("heads", "index"):
        shutil.copytree(prepared / name, data_dir / name, dirs_exist_ok=True)


def link_graph(source: Path, data_dir: Path) -> None:
    """Give a data folder the embedding model's graph of another: a link, because it is only ever
    replaced whole."""
    target = data_dir / "embeddings"
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in (source / "embeddings").glob("*.*"):
        try:
            os.link(file, target / file.name)
        except OSError:
            shutil.copy(file, target / file.name)


@pytest.fixture(scope="session")
def prepared_home(engine_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``weights``, ``embeddings``, ``heads`` and ``index`` as a first start leaves
    them."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    home = shared / "prepared-home"
    with (shared / "prepared-home.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            _first_use(engine_home, home)
    return home


def _first_use(engine_home: Path, home: Path) -> None:
    desk = ApplianceProcess(None)
    try:
        link_weights(engine_home, desk.data_dir)
        desk.cli_json("db", "upgrade")
        desk.cli_json("kb", "import", str(FAQS))
        # Searching needs trained heads and an index, and no engine.
        desk.cli_json("kb", "search", "How do I reset my password?")
        unfinished = home.with_name("prepared-home-unfinished")
        for name in ("heads", "index"):
            shutil.copytree(desk.data_dir / name, unfinished / name)
        link_weights(desk.data_dir, unfinished)
        link_graph(desk.data_dir, unfinished)
        unfinished.rename(home)
    finally:
        desk.clean()


@pytest.fixture(scope="session")
def appliance(prepared_home: Path) -> Iterator[ApplianceProcess]:
    """An appliance that all tests share: leave it running and its articles as they are."""
    desk = ApplianceProcess(prepared_home)
    try:
        desk.fill()
        desk.start()
        yield desk
        desk.stop()
    finally:
        desk.clean()


MakeAppliance = Callable[..., ApplianceProcess]


def _factory(prepared: Path) -> Iterator[MakeAppliance]:
    made: list[ApplianceProcess] = []

    def make(
        *, fill: bool = True, start: bool = True, environment: dict[str, str] | None = None
    ) -> ApplianceProcess:
        desk = ApplianceProcess(prepared, environment=environment)
        made.append(desk)
        if fill:
            desk.fill()
        if start:
            desk.start()
        return desk

    try:
        yield make
    finally:
        for desk in made:
            desk.clean()


@pytest.fixture
def make_appliance(prepared_home: Path) -> Iterator[MakeAppliance]:
    """Make appliances of one's own; they are ended afterwards."""
    yield from _factory(prepared_home)


@pytest.fixture(scope="module")
def make_module_appliance(prepared_home: Path) -> Iterator[MakeAppliance]:
    """As ``make_appliance``, for one that the tests of a module break and mend in turn."""
    yield from _factory(prepared_home)

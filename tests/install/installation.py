"""Installations below a root of their own, with made-up releases: the checkout's tree under another
version, run by the tests' own environment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from appliance.operations.release.layout import Layout
from appliance.settings import Settings
from appliance.storage import migrate
from tests.appliance_process import FAQS, PATIENCE, clean_environment, free_port, until

TREE = Path(__file__).resolve().parent.parent.parent
MADE_UP_MAIN = Path(__file__).with_name("made_up_main.py")
REVISION = "made_up_revision"

MIGRATION = f'''"""A change that only the made-up release has."""

import sqlalchemy as sa
from alembic import op

revision = "{REVISION}"
down_revision = "{{head}}"


def upgrade() -> None:
    op.add_column("users", sa.Column("made_up", sa.Text()))
    {{more}}


def downgrade() -> None:
    op.drop_column("users", "made_up")
'''


class Installation:
    """A root with releases, and what an administrator does there."""

    def __init__(self, *, real: bool = False, settings: dict[str, Any] | None = None) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="root-", dir="/tmp")).resolve()
        self.layout = Layout(self.root)
        self.data_dir = self.layout.state
        self.sockets = Settings(data_dir=self.data_dir, runtime_dir=None).sockets
        self.real = real
        self.port = free_port()
        for folder in (self.layout.releases, self.layout.configuration, self.data_dir):
            folder.mkdir(parents=True)
        self.data_dir.chmod(0o700)
        values = {"host": "127.0.0.1", "port": self.port} | (settings or {})
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
        (self.layout.configuration / "appliance.toml").write_text("".join(lines))
        self.key = ""

    # --- releases --------------------------------------------------------------------------------

    def add(self, version: str, *, schema: bool = False, fault: str = "") -> None:
        """Stage a release.

        :param schema: whether it has a migration of its own.
        :param fault: ``migration``, ``lost`` (it loses rows), ``start``, ``hang`` or ``probe``.
        """
        release = self.layout.releases / version
        for name in ("appliance", "migrations", "models", "kb", "systemd"):
            shutil.copytree(TREE / name, release / name)
        package = release / "appliance/__init__.py"
        package.write_text(f'"""A made-up release."""\n\n__version__ = "{version}"\n')
        # Units of their own, so that those of two releases can be told apart.
        for unit in (release / "systemd").iterdir():
            unit.write_text(f"# {version}\n{unit.read_text()}")
        if not self.real:
            shutil.copy(MADE_UP_MAIN, release / "appliance/__main__.py")
        if fault in ("start", "hang", "probe"):
            (release / "fault").write_text(fault)
        if schema or fault in ("migration", "lost"):
            more = {
                "migration": 'op.execute("INSERT INTO no_such_table VALUES (1)")',
                "lost": 'op.execute("DELETE FROM feedback")',
            }.get(fault, "")
            text = MIGRATION.format(head=migrate.head(), more=more)
            (release / "migrations/versions/2099-01-01-0000_made_up.py").write_text(text)
        program = self.layout.program(version)
        program.parent.mkdir(parents=True)
        program.write_text(
            f'#!/bin/sh\nPYTHONPATH={release} exec {sys.executable} -m appliance "$@"\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def command(self, version: str, *words: str) -> list[str]:
        """A command line of a release."""
        return [str(self.layout.program(version)), *words]

    @property
    def environment(self) -> dict[str, str]:
        """What commands run in: nothing of whoever runs the tests."""
        kept = clean_environment()
        return {name: value for name, value in kept.items() if name != "PYTHONPATH"}

    def cli(self, version: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of a release to its end."""
        return subprocess.run(
            self.command(version, *words),
            env=self.environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
        )

    def cli_json(self, version: str, *words: str) -> Any:
        """Run one that has to succeed; what it printed, decoded."""
        done = self.cli(version, *words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def begin(self, version: str, *words: str, hold: str = "") -> subprocess.Popen[str]:
        """Begin a command of a release, which stops at that phase until ``go_on`` or a kill."""
        marked = {"MADE_UP_HOLD": hold, "MADE_UP_MARK": str(self.mark)} if hold else {}
        self.mark.unlink(missing_ok=True)
        process = subprocess.Popen(
            self.command(version, *words),
            env=self.environment | marked,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if hold:
            until(lambda: self.mark.exists() or process.poll() is not None, f"the phase {hold}")
            assert process.poll() is None, process.stderr and process.stderr.read()
        return process

    @property
    def mark(self) -> Path:
        """There while a command is held."""
        return self.root / "held"

    # --- the desk --------------------------------------------------------------------------------

    def install(self, version: str) -> None:
        """The first release, with articles and a key, running."""
        self.add(version)
        self.cli_json(version, "db", "upgrade")
        self.cli_json(version, "kb", "import", str(FAQS))
        self.key = self.cli_json(version, "keys", "create", "--role", "admin")["key"]
        self.cli_json(version, "release", "activate", version)
        self.cli_json(version, "release", "start")

    def get(self, path: str) -> httpx.Response | None:
        """What a customer's browser gets; None where nobody listens."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=10.0, trust_env=False)
        except httpx.TransportError:
            return None

    def serving(self) -> str | None:
        """The version that customers reach."""
        answer = self.get("/api/v1/health")
        return answer.json()["version"] if answer is not None else None

    def wait_serving(self) -> str:
        """The same, as soon as there is one."""
        version: str = until(self.serving, "a release that serves")
        return version

    def ask(self, message: str) -> dict[str, Any]:
        """A customer's question, which has to be answered."""
        return self.post("query", {"user_id": "customer-1", "message": message})

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the API answers."""
        answer = httpx.post(
            f"http://127.0.0.1:{self.port}/api/v1/{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=60.0,
            trust_env=False,
        )
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def status(self) -> dict[str, Any]:
        """``appliance release status`` of the release in charge."""
        found: dict[str, Any] = self.cli_json(self.layout.version or "", "release", "status")
        return found

    def rows(self, statement: str) -> list[Any]:
        """What the database file holds, read past the appliance."""
        file = f"file:{self.data_dir / 'appliance.db'}?mode=ro"
        with closing(sqlite3.connect(file, uri=True, timeout=30)) as connection:
            return connection.execute(statement).fetchall()

    def journal(self) -> dict[str, Any]:
        """What the journal says; empty where there is none."""
        try:
            found: dict[str, Any] = json.loads(self.layout.journal.read_text())
        except FileNotFoundError:
            return {}
        return found

    def log(self) -> str:
        """The end of the processes' log."""
        log = self.layout.run / "up.log"
        return log.read_text(errors="replace")[-4_000:] if log.exists() else ""

    def processes(self, words: str = "") -> list[int]:
        """Processes of any release of this root."""
        return [pid for pid, command in processes_below(self.root).items() if words in command]

    def clean(self) -> None:
        """End whatever runs, and remove it."""
        for _ in range(3):
            for pid in self.processes():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self.sockets, ignore_errors=True)


def processes_below(root: Path) -> dict[int, str]:
    """Command lines, by process id, of what runs code that lies below a root."""
    mark = f"PYTHONPATH={root}/".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:  # it ended while we looked
            continue
        if command and any(line.startswith(mark) for line in environment):
            found[int(folder.name)] = command.decode(errors="replace").strip()
    return found

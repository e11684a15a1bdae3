"""From a bundle to the first grounded answer, with no network there and by the kernel's record of
every attempt to reach one. Builds a real bundle, so it takes minutes."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.appliance_process import ROOT, clean_environment, free_port
from tests.e2e.test_offline import leaving, new_network, tracer
from tests.install.trees import tree_hash

pytestmark = [pytest.mark.full, pytest.mark.loopback, pytest.mark.timeout(3600)]

STATE = "var/lib/appliance"
LOG = "var/lib/appliance-release/run"
"""Where a running desk writes; nothing else of an installation may change by itself."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, because sockets lie in it, and not in memory."""
    with tempfile.TemporaryDirectory(prefix="first-", dir="/tmp") as made:
        yield Path(made).resolve()


def build(folder: Path) -> Path:
    bundle = folder / "desk.tar"
    environment = clean_environment(
        APPLIANCE_DATA_DIR=str(folder / "builder"), PYTHONPATH=str(ROOT)
    )
    words = ["bundle", "build", "--out", bundle, "--allow-dirty"]
    subprocess.run([sys.executable, "-m", "appliance", *words], check=True, env=environment)
    return bundle


def test_without_a_network_one_command_leads_to_the_first_answer(folder: Path) -> None:
    bundle, root, trace = build(folder), folder / "root", folder / "trace"
    command = [
        *(ROOT / "install.sh", "install", "--bundle", bundle, "--root", root, "--yes"),
        *("--port", str(free_port())),
    ]
    network = new_network()

    def run(*words: str | Path) -> str:
        done = subprocess.run(words, env=clean_environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        # The record goes on with the desk; it ends when the desk is stopped.
        with (
            (folder / "said").open("w") as output,
            subprocess.Popen(
                [*tracer(trace), *network, *command],
                env=clean_environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            ) as traced,
        ):
            # strace stays as long as the desk runs: what was said tells that the command is done.
            while traced.poll() is None and "Admin key" not in (folder / "said").read_text():
                try:
                    traced.wait(1)
                except subprocess.TimeoutExpired:
                    continue
            said = (folder / "said").read_text()
            assert re.search(r"^First answer:    .{20,} \[\w+\]$", said, re.MULTILINE), said
            before = tree_hash(root, without={STATE, LOG})
            run(root / "usr/local/bin/appliance", "release", "stop")
        assert leaving(trace.read_text()) == []
        assert "sa_family=AF_UNIX" in trace.read_text()
        # A second run starts the desk again, which is state, and changes nothing else.
        assert "Admin key" not in run(*command)
        assert tree_hash(root, without={STATE, LOG}) == before
    finally:
        run(ROOT / "install.sh", "uninstall", "--purge", "--yes", "--root", root)
    assert list(root.iterdir()) == []

"""Children are restarted with patience, ended for certain, and never outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.operations import processes
from appliance.operations.processes import Child, StopRequested, appliance_command


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", textwrap.dedent(code)]


SLEEPER = python("import time; time.sleep(60)")


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet is dead all the same."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


@pytest.fixture
def children() -> Iterator[list[Child]]:
    made: list[Child] = []
    yield made
    for child in made:
        if child.pid is not None:
            os.kill(child.pid, signal.SIGKILL)
        child.finish(5)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(processes, "LONGEST_PAUSE", 0.2)


def made(children: list[Child], command: list[str]) -> Child:
    child = Child("test", command)
    children.append(child)
    return child


def test_a_child_is_started_once_and_left_alone_while_it_runs(children: list[Child]) -> None:
    child = made(children, SLEEPER)
    assert (child.pid, child.exit_status) == (None, None)
    assert child.keep()
    first = child.pid
    assert first is not None
    assert alive(first)
    for _ in range(5):
        assert not child.keep()
    assert child.pid == first
    assert child.exit_status is None


def test_a_child_that_ended_is_restarted_after_its_pause(
    children: list[Child], quick: None
) -> None:
    child = made(children, SLEEPER)
    child.start()
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: child.exit_status is not None)
    assert child.exit_status == -signal.SIGKILL
    noticed = time.monotonic()
    assert not child.keep(), "not at once"
    until(child.keep)
    assert time.monotonic() - noticed >= 0.05
    assert child.pid not in (None, first)


def test_pauses_grow_up_to_the_longest(
    children: list[Child], quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: clock[0])
    child = made(children, python("raise SystemExit(3)"))
    child.start()
    pauses = []
    for _ in range(5):
        while child.exit_status is None:
            time.sleep(0.002)
        noticed = clock[0]
        while not child.keep():
            clock[0] += 0.01
        pauses.append(clock[0] - noticed)
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.2, 0.2], abs=0.015)


def test_a_child_that_was_well_for_long_is_restarted_quickly(
    children: list[Child], quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: clock[0])
    child = made(children, python("raise SystemExit(3)"))
    child.start()

    def pause_after(lived: float) -> float:
        while child.exit_status is None:
            time.sleep(0.002)
        clock[0] += lived
        noticed = clock[0]
        while not child.keep():
            clock[0] += 0.01
        return clock[0] - noticed

    assert pause_after(0.0) == pytest.approx(0.05, abs=0.015)
    assert pause_after(0.0) == pytest.approx(0.1, abs=0.015)
    assert pause_after(processes.STEADY_SECONDS + 1) == pytest.approx(0.05, abs=0.015)


def test_finish_waits_for_a_child_that_obeys(children: list[Child]) -> None:
    child = made(children, SLEEPER)
    child.start()
    pid = child.pid
    assert pid is not None
    child.terminate()
    child.finish(10)
    assert not alive(pid)
    assert child.pid is None


def test_finish_kills_a_stubborn_child(children: list[Child], tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = made(
        children,
        python(
            f"""
            import signal, time, pathlib
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            pathlib.Path({str(ready)!r}).touch()
            time.sleep(60)
            """
        ),
    )
    child.start()
    pid = child.pid
    assert pid is not None
    until(ready.exists)
    child.terminate()
    started = time.monotonic()
    child.finish(0.2)
    assert time.monotonic() - started < 5
    assert not alive(pid)


def test_ending_a_child_that_never_ran_or_has_ended_is_nothing(children: list[Child]) -> None:
    idle = made(children, SLEEPER)
    idle.terminate()
    idle.finish(0.1)
    ended = made(children, python("pass"))
    ended.start()
    until(lambda: ended.exit_status is not None)
    ended.terminate()
    ended.finish(0.1)
    assert ended.pid is None


def test_a_child_does_not_see_the_terminals_ctrl_c(children: list[Child]) -> None:
    child = made(children, SLEEPER)
    child.start()
    assert child.pid is not None
    assert os.getpgid(child.pid) != os.getpgid(0)
    assert os.getsid(child.pid) != os.getsid(0)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_dies_with_its_parent(end: signal.Signals) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import sys, time
                from appliance.operations.processes import Child
                child = Child("test", [sys.executable, "-S", "-c", "import time; time.sleep(60)"])
                child.start()
                print(child.pid, flush=True)
                time.sleep(60)
                """
            ),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = _pid_from(parent)
    assert alive(pid)
    parent.send_signal(end)
    parent.wait(10)
    until(lambda: not alive(pid))


def _pid_from(parent: subprocess.Popen[str]) -> int:
    """The first line that is a number; log lines may come before."""
    assert parent.stdout is not None
    while True:
        line = parent.stdout.readline()
        assert line, "the parent ended"
        if line.strip().isdigit():
            return int(line)


def test_a_signal_becomes_a_flag() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            stop = StopRequested()
            assert not stop.seen
            os.kill(os.getpid(), number)
            until(lambda stop=stop: stop.seen)  # type: ignore[misc]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_our_own_command_is_this_installations() -> None:
    assert appliance_command("api") == [sys.executable, "-m", "appliance", "api"]

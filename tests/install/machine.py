"""A machine of one's own: systemd as PID 1 of new namespaces, with this checkout installed in it.

What units say of their sandbox is then what systemd makes of it, not what somebody read there.
``/etc`` and ``/var`` are overlays, ``/run``, ``/tmp`` and ``/opt`` are empty, the network is a
loopback: nothing of the real machine is changed and nothing outside is reached. Needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.appliance_process import PATIENCE, ROOT, until

USER: Final = 64001
UNITS: Final = "etc/systemd/system"
TREE: Final = ("appliance", "migrations", "models", "kb", "systemd")
TARGETS: Final = ("machine", "sysinit", "basic", "shutdown", "network", "multi-user", "umount")
"""Of the system's own units only names that others order themselves by."""

BOOT: Final = """
set -eu
root=$1 tree=$2 python=$3 packages=$4
mount --make-rprivate /
mount -t proc proc /proc
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for folder in etc var; do
    layers="lowerdir=/$folder,upperdir=$root/$folder,workdir=$root/.$folder"
    mount -t overlay overlay -o "$layers" "/$folder"
done
mount -t tmpfs tmpfs /opt
mkdir -p /opt/python /opt/packages /opt/appliance/releases/0/.venv/bin
ln -s releases/0 /opt/appliance/current
mount --bind "$python" /opt/python
mount --bind "$packages" /opt/packages
for folder in $5; do
    mkdir "/opt/appliance/releases/0/$folder"
    mount --bind "$tree/$folder" "/opt/appliance/releases/0/$folder"
done
cp "$root/appliance" /opt/appliance/releases/0/.venv/bin/appliance
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /var/tmp
mount -t tmpfs tmpfs /run
# Shared, but among the units of this machine only: credentials are mounted from a child.
mount --make-rshared /
ip link set lo up
export SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/systemd/system SYSTEMD_GENERATOR_PATH=/nowhere
export container=other
exec setpriv --bounding-set -sys_time,-sys_boot,-sys_module \\
    /lib/systemd/systemd --system --unit=machine.target --log-target=console --show-status=false
"""

PYTHON: Final = f"python{sys.version_info[0]}.{sys.version_info[1]}"

PROGRAM: Final = """#!/bin/sh
PYTHONPATH=/opt/appliance/releases/0:/opt/packages PYTHONDONTWRITEBYTECODE=1
LD_LIBRARY_PATH=/opt/python/lib
export PYTHONPATH PYTHONDONTWRITEBYTECODE LD_LIBRARY_PATH
exec /opt/python/bin/{python} -m appliance "$@"
"""

EVERY_SERVICE: Final = """[Service]
StandardOutput=append:/run/%N.log
StandardError=append:/run/%N.log
"""


class Machine:
    """A booted machine, in which commands are run as root."""

    def __init__(self, root: Path, pid: int) -> None:
        self.root = root
        self.pid = pid

    def run(
        self, *command: str, user: bool = False, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there, as the appliance's user if asked."""
        who = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups") if user else ()
        return subprocess.run(
            [*_enter(self.pid), *who, *command],
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def appliance(self, *words: str, user: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the appliance's command there."""
        program = "/opt/appliance/current/.venv/bin/appliance"
        return self.run(program, *words, user=user)

    def start(self, *units: str) -> None:
        """Start units; a failure shows their logs."""
        done = self.run("systemctl", "start", *units)
        assert done.returncode == 0, done.stderr + self.logs()

    def shown(self, unit: str, name: str) -> str:
        """A property of a unit, as systemd has it."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def logs(self) -> str:
        """What the services wrote."""
        return self.run("sh", "-c", "tail -n 40 /run/*.log").stdout

    def drop_in(self, unit: str, text: str) -> None:
        """A local change, the way an administrator makes one."""
        folder = f"/{UNITS}/{unit}.d"
        script = f"mkdir -p {folder} && cat > {folder}/local.conf && systemctl daemon-reload"
        done = subprocess.run([*_enter(self.pid), "sh", "-c", script], input=text, text=True)
        assert done.returncode == 0


def _enter(pid: int) -> tuple[str, ...]:
    return ("nsenter", "--target", str(pid), "--all", "--wdns=/")


def give_up(reason: str) -> None:
    """Skip on a developer's machine, fail where the tools have to be."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


@contextmanager
def booted(root: Path, *, data: Path | None = None) -> Iterator[Machine]:
    """A machine with the units installed and not started.

    :param data: what ``/var/lib/appliance`` begins with.
    """
    tools = ("unshare", "nsenter", "setpriv", "ip", "systemctl")
    group = Path("/sys/fs/cgroup/unified")
    group = (group if group.is_dir() else Path("/sys/fs/cgroup")) / f"machine-{uuid.uuid4().hex}"
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing or os.getuid() != 0 or not Path("/lib/systemd/systemd").exists():
        give_up(f"a machine of one's own needs root, systemd and {', '.join(tools)}")
    try:
        group.mkdir()
    except OSError as error:
        # A container's owner decides that, and no package mends it.
        pytest.skip(f"no control group of one's own: {error}")
    _furnish(root, data)
    script = f"echo $$ > {group}/cgroup.procs && exec unshare --cgroup --mount --pid --net --uts "
    script += '--ipc --fork --kill-child sh -c "$@"'
    packages = sysconfig.get_paths()["purelib"]
    words = (str(root), str(ROOT), sys.base_prefix, packages, " ".join(TREE))
    log = (root / "boot.log").open("wb")
    outer = subprocess.Popen(
        ["sh", "-c", script, "sh", BOOT, "sh", *words],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    try:
        yield Machine(root, until(lambda: _manager(outer, root), "systemd is up", patience=30))
    finally:
        outer.kill()
        outer.wait()
        log.close()
        until(lambda: _removed(group), "its control groups are gone", patience=30)


def _furnish(root: Path, data: Path | None) -> None:
    for name in ("etc", "var", ".etc", ".var"):
        (root / name).mkdir()
    for name, line in (
        ("passwd", f"appliance:x:{USER}:{USER}::/:/bin/false"),
        ("group", f"appliance:x:{USER}:"),
    ):
        (root / "etc" / name).write_text(f"{Path('/etc', name).read_text().rstrip()}\n{line}\n")
    units = root / UNITS
    (units / "service.d").mkdir(parents=True)
    (units / "service.d" / "log.conf").write_text(EVERY_SERVICE)
    for file in (ROOT / "systemd").iterdir():
        shutil.copy(file, units)
    for name in TARGETS:
        (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    (root / "etc/appliance/credentials").mkdir(parents=True, mode=0o700)
    program = root / "appliance"
    program.write_text(PROGRAM.format(python=PYTHON))
    program.chmod(0o755)
    state = root / "var/lib/appliance"
    if data is not None:
        shutil.copytree(data, state)
    state.mkdir(parents=True, exist_ok=True)
    for path in (state, *state.rglob("*")):
        os.chown(path, USER, USER)
    state.chmod(0o700)
    # An overlay's upper folder is the folder itself: it has to be passable.
    for name in ("etc", "var", "var/lib"):
        (root / name).chmod(0o755)


def _manager(outer: subprocess.Popen[bytes], root: Path) -> int | None:
    assert outer.poll() is None, (root / "boot.log").read_text()
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
    if not children:
        return None
    asked = [*_enter(int(children[0])), "systemctl", "is-active", "machine.target"]
    done = subprocess.run(asked, capture_output=True, text=True)
    return int(children[0]) if done.stdout.strip() == "active" else None


def _removed(group: Path) -> bool:
    """Whether a control group and those below it, in which nobody is any more, could go."""
    try:
        for folder, _, _ in os.walk(group, topdown=False):
            os.rmdir(folder)
    except OSError:
        return False
    return True


OUTSIDE: Final = """
import os, socket, threading
print(os.getpid(), flush=True)
input()
def tcp():
    listener = socket.create_server(("192.0.2.1", 443))
    while True: listener.accept()[0].close()
def udp():
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.bind(("192.0.2.1", 53))
    while True:
        question, asker = echo.recvfrom(512)
        echo.sendto(question, asker)
for each in (tcp, udp): threading.Thread(target=each).start()
print("there", flush=True)
"""


@contextmanager
def world(machine: Machine) -> Iterator[None]:
    """Another machine, at the other end of a cable: it has the first of the addresses that nobody
    has, listens there, and is the way to everywhere."""
    # By the machine's own Python: the tests' may lie in a folder that is empty there.
    python = ("env", "LD_LIBRARY_PATH=/opt/python/lib", f"/opt/python/bin/{PYTHON}")
    outside = subprocess.Popen(
        [*_enter(machine.pid), "unshare", "--net", *python, "-c", OUTSIDE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert outside.stdin is not None
        assert outside.stdout is not None
        pid = outside.stdout.readline().strip()
        there = ("nsenter", f"--target={pid}", "--net")
        for words in (
            ("ip", "link", "add", "cable", "type", "veth", "peer", "name", "outside"),
            ("ip", "link", "set", "outside", "netns", pid),
            ("ip", "addr", "add", "10.9.9.2/24", "dev", "cable"),
            ("ip", "link", "set", "cable", "up"),
            ("ip", "route", "add", "default", "via", "10.9.9.1"),
            (*there, "ip", "addr", "add", "10.9.9.1/24", "dev", "outside"),
            (*there, "ip", "addr", "add", "192.0.2.1/32", "dev", "outside"),
            (*there, "ip", "link", "set", "outside", "up"),
        ):
            done = machine.run(*words)
            assert done.returncode == 0, (words, done.stderr)
        outside.stdin.write("\n")
        outside.stdin.flush()
        assert outside.stdout.readline() == "there\n"
        yield
    finally:
        outside.kill()
        outside.wait()
        for pipe in (outside.stdin, outside.stdout):
            if pipe is not None:
                pipe.close()

"""Disks that are full, and disks that fail."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.appliance_process import until

WRITES = "write,pwrite64,writev,ftruncate,fallocate"
SYNCS = "fsync,fdatasync"
DETACH_SECONDS = 5.0
READS = "read,pread64"


class Faults:
    """System calls of a running process that fail, told to the kernel's tracer.

    :param calls: names of system calls, separated by commas.
    :param error: the name of the error they return.
    :param when: which of them, as ``strace --inject`` counts: all by default.
    :param paths: only those on these files.
    """

    def __init__(
        self, pid: int, calls: str, error: str, paths: Sequence[Path], *, when: str = "1+"
    ) -> None:
        self._log = Path(tempfile.mkstemp(prefix="strace-", dir="/tmp")[1])
        chosen = [word for path in paths for word in ("-P", str(path))]
        self._strace = subprocess.Popen(
            [
                *("strace", "-f", "-qq", "-o", self._log, "-p", str(pid), "-e", f"trace={calls}"),
                *("-e", f"inject={calls}:error={error}:when={when}", *chosen),
            ],
            stderr=subprocess.PIPE,
        )
        status = Path(f"/proc/{pid}/status")
        until(lambda: self._traces(status), "the tracer at work")

    def _traces(self, status: Path) -> bool:
        assert self._strace.poll() is None, self._strace.communicate()[1].decode()
        return f"TracerPid:\t{self._strace.pid}" in status.read_text()

    @property
    def count(self) -> int:
        """How many calls failed so far."""
        return self._log.read_text(errors="replace").count("(INJECTED)")

    def end(self) -> int:
        """Leave the process alone again; return how many calls failed."""
        self._strace.send_signal(signal.SIGINT)
        try:
            self._strace.communicate(timeout=DETACH_SECONDS)
        except subprocess.TimeoutExpired:
            # It waits for ever for a process that was killed while it traced it.
            self._strace.kill()
            self._strace.communicate()
        count = self.count
        self._log.unlink()
        return count


@contextmanager
def faults(
    pid: int, calls: str, error: str, paths: Sequence[Path], *, when: str = "1+"
) -> Iterator[Faults]:
    """Have system calls of a process fail until the block ends; see :class:`Faults`."""
    running = Faults(pid, calls, error, paths, when=when)
    try:
        yield running
    finally:
        running.end()


class SmallDisk:
    """A file system of some megabytes, in memory, to be filled to the last byte."""

    def __init__(self, folder: Path, mebibytes: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "tmpfs", str(folder)],
            check=True,
        )
        self._ballast = folder / "ballast"

    def fill(self, *, leave: int = 0) -> None:
        """Write until nothing fits any more.

        :param leave: bytes to give back at the end.
        """
        with self._ballast.open("ab", buffering=0) as file:
            for size in (2**20, 2**12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    assert error.errno == errno.ENOSPC, error  # noqa: PT017
            os.ftruncate(file.fileno(), max(0, os.fstat(file.fileno()).st_size - leave))

    def free(self) -> None:
        """Give all of it back."""
        self._ballast.unlink()

    def remove(self) -> None:
        """Unmount, whoever still has files open there."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

"""Commands of the command line in processes that start at once.

``python -m appliance`` spends nearly all of a short command's time on imports. Here a server that
has imported them forks a process for each command; environment, folder, streams and exit status
are a process's own. What imports and starting cost, and what a fresh interpreter would find wrong,
is looked at by the tests that run ``COMMAND`` itself.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["alembic.op", "appliance.cli.main", "appliance.storage.database", "appliance.services.access"]
)


def run_forked(
    arguments: Sequence[str], *, environment: Mapping[str, str], folder: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run ``appliance ARGUMENTS`` and return its status and what it said.

    :raises subprocess.TimeoutExpired: it took longer than ``timeout`` seconds, and was killed.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        # A path of this process stands for the open file until the child has opened it.
        streams = tuple(f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (out, error))
        command = [str(part) for part in arguments]
        process = _SERVER.Process(target=_run, args=(command, dict(environment), folder, streams))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout)
        status = process.exitcode
        process.close()
        for file in (out, error):
            file.seek(0)
        return subprocess.CompletedProcess(command, status, out.read(), error.read())


def _run(
    arguments: list[str], environment: dict[str, str], folder: Path, streams: tuple[str, str]
) -> None:
    for number, path in enumerate((os.devnull, *streams)):
        opened = os.open(path, os.O_RDWR)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, closefd=False, encoding="utf-8", errors=errors)  # noqa: SIM115
        for number, mode, errors in (
            (0, "r", "strict"),
            (1, "w", "strict"),
            (2, "w", "backslashreplace"),
        )
    )
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["appliance", *arguments]
    from appliance.cli.main import main

    try:
        main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()

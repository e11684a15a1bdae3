"""Somebody who outlives a killed upgrade and undoes it: a process in a session of its own, at the
other end of a pipe that closes with the upgrade's life."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Final

from appliance.operations.processes import appliance_command
from appliance.operations.release.layout import Layout

GOODBYE: Final = b"over\n"
"""What an upgrade says that ended in good order, with or without success."""


@contextmanager
def guarded(layout: Layout) -> Iterator[None]:
    """Have a guardian for the time of the block. An exception that leaves the block tells it to
    act, as a kill does."""
    with layout.log.open("ab") as log:
        guardian = subprocess.Popen(  # noqa: S603 - our own command
            appliance_command("release", "guard"),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    assert guardian.stdin is not None
    try:
        yield
        guardian.stdin.write(GOODBYE)
    except BaseException:
        # It goes on when this process is gone, and with it the lock.
        guardian.returncode = 0
        raise
    finally:
        with suppress(BrokenPipeError):  # it was killed; the work is done all the same
            guardian.stdin.close()
    guardian.wait()


def is_over(pipe: BinaryIO) -> bool:
    """Wait for the end of the upgrade, at the guardian's end. False when it was killed."""
    return pipe.read() == GOODBYE

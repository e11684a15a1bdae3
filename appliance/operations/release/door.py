"""Whether customers may come in. While a release is on trial its processes run, but its port is
shut and it delivers nothing: whatever it accepted would be lost if it were undone. The same goes
for commands, from the moment that the services of the release before are stopped.

A file says so, looked at by each process. No process has to be told that the trial is over, so that
a kill of whoever would have told them leaves no door shut for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from appliance.operations.release.layout import Layout
from appliance.settings import ROOT

LOOK_SECONDS: Final = 0.05


def is_shut() -> bool:
    """Whether an upgrade of the installation that this code belongs to may still be undone."""
    return ROOT is not None and Layout(ROOT).probation.exists()


async def wait_until_open(
    *, gives_up: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None
) -> bool:
    """Wait for the end of the trial. False when ``gives_up`` says so first.

    :param meanwhile: called at each look.
    """
    while not gives_up():
        if not is_shut():
            return True
        meanwhile()
        await asyncio.sleep(LOOK_SECONDS)
    return False

"""``python -m appliance.llm.engine``: one engine in the foreground."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from pathlib import Path

from appliance.errors import ApplianceError
from appliance.settings import enforce_offline, ensure_folders, load_settings

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Parse the arguments and serve; 0 after a signal, 1 when it could not start."""
    enforce_offline()
    parser = argparse.ArgumentParser(prog="python -m appliance.llm.engine", description=__doc__)
    parser.add_argument("--model", required=True, help="name of the model in the catalog")
    parser.add_argument("--socket", required=True, type=Path, help="Unix socket to listen on")
    parser.add_argument(
        "--die-with-parent",
        action="store_true",
        help="stop when the thread that started this process ends",
    )
    arguments = parser.parse_args()
    if arguments.die_with_parent:
        _die_with_parent()
    try:
        settings = load_settings()
        ensure_folders(settings)
        # Imported here: enforce_offline() must come before any library.
        from appliance.llm.engine import serve

        serve(settings, arguments.model, arguments.socket.absolute())
    except ApplianceError as error:
        sys.stderr.write(f"{error.detail} {error.hint}\n")
        return 1
    return 0


def _die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent ends; leave at once if it has ended already."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())

"""What runs as ``python -m appliance`` in a made-up release: the real commands, on twins of the
models, so that a start takes seconds. It is copied into the release in place of ``__main__.py``.

The release's file ``fault`` makes it a bad one: ``start`` ends the API, ``hang`` never lets it get
ready, ``probe`` has it find no articles. ``MADE_UP_HOLD`` names the phase at which an upgrade stops
until somebody goes on with it or kills it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from appliance.cli.main import main

FAULT = Path(__file__).resolve().parent.parent / "fault"


def _on_twins(fault: str) -> None:
    from appliance import bootstrap
    from appliance.knowledge.base import KnowledgeBase
    from appliance.knowledge.embedding import HashedEmbedder
    from appliance.llm.scripted import ScriptedModel

    bootstrap._local_model = lambda settings: ScriptedModel()
    made_up: Any = bootstrap.Appliance
    made_up._load_embedder = lambda self: HashedEmbedder()
    if fault == "start":
        sys.exit("this release cannot start")
    if fault == "hang":
        made_up._load_embedder = lambda self: threading.Event().wait()
    if fault == "probe":

        async def nothing(*_: Any, **__: Any) -> list[Any]:
            return []

        blind: Any = KnowledgeBase
        blind.search = nothing


def _hold_at(phase: str, mark: Path) -> None:
    """Have an upgrade stop right after it wrote down that it enters a phase, until the mark is
    removed; ``undo`` is its first step back, ``undone`` its last, not written down yet."""
    from appliance.operations.release.journal import Journal

    enter, end = Journal.enter, Journal.end

    def hold() -> None:
        mark.touch()
        while mark.exists():
            time.sleep(0.02)

    def entering(self: Journal, entry: Any, name: str, **facts: Any) -> None:
        enter(self, entry, name, **facts)
        if name == phase:
            hold()

    def ending(self: Journal, entry: Any, outcome: Any, reason: str = "") -> None:
        if outcome == phase == "undone":
            hold()
        end(self, entry, outcome, reason)
        if outcome == "undoing" and phase == "undo":
            hold()

    made_up: Any = Journal
    made_up.enter, made_up.end = entering, ending


if __name__ == "__main__":
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command == "engine":
        # Stands in for weights that take a second of both processors to load.
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        sys.exit(0)
    if command == "api":
        _on_twins(FAULT.read_text().strip() if FAULT.exists() else "")
    if command == "release" and sys.argv[2] in ("upgrade", "rollback"):
        held = os.environ.get("MADE_UP_HOLD")
        if held:
            _hold_at(held, Path(os.environ["MADE_UP_MARK"]))
    main()

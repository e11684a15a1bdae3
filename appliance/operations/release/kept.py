"""What is kept of earlier upgrades: a release to go back to, and the database as that release left
it."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from typing import Any, Final

from appliance.operations.release.data import Data
from appliance.operations.release.journal import Entry
from appliance.operations.release.layout import Layout, write_durably

KEPT: Final = 2
"""Releases kept beside the one in charge."""
MANIFEST: Final = "manifest.json"


def remember(layout: Layout, entry: Entry) -> None:
    """Keep a finished upgrade with its backup."""
    folder = layout.backups / entry.id
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps(asdict(entry), indent=2)
    write_durably(folder / MANIFEST, text.encode() + b"\n", 0o600)


def all_kept(layout: Layout) -> list[dict[str, Any]]:
    """Finished upgrades and rollbacks whose backup is there, the latest first."""
    found = []
    for path in layout.backups.glob(f"*/{MANIFEST}"):
        try:
            found.append(json.loads(path.read_bytes()))
        except (OSError, ValueError):
            continue  # half of a removal; the next one takes the rest
    return sorted(found, key=lambda entry: entry["id"], reverse=True)


def way_back(layout: Layout, version: str | None) -> dict[str, Any] | None:
    """The upgrade that put ``version`` in charge, if the release before it is still there."""
    for entry in all_kept(layout):
        if entry["operation"] == "upgrade" and entry["after"] == version:
            there = layout.program(entry["before"]).exists()
            return entry if there else None
    return None


def prune(layout: Layout, data: Data) -> list[str]:
    """Remove releases that were in charge before the last ones, and the backups that lead to them.

    What was never in charge is not touched: it may be about to be.

    :return: what was removed.
    """
    # From the latest on: what was in charge, and before that.
    order = [layout.version or ""]
    for entry in all_kept(layout):
        order += [entry["after"], entry["before"]]
    unique = list(dict.fromkeys(order))
    keep = set(unique[: KEPT + 1])
    gone = []
    for version in unique[KEPT + 1 :]:
        folder = layout.release(version)
        if folder.is_dir():
            shutil.rmtree(folder)
            gone.append(f"release {version}")
    for folder in layout.backups.iterdir():
        if not (folder / MANIFEST).exists():
            shutil.rmtree(folder)  # of an upgrade that was undone, or half of a removal
    for entry in all_kept(layout):
        if entry["before"] not in keep or entry["after"] not in keep:
            data.discard(entry["facts"]["backup"])
            shutil.rmtree(layout.backups / entry["id"])
            gone.append(f"backup {entry['id']}")
    return gone

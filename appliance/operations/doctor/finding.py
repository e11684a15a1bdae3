"""One thing looked at, and the page it stands on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from appliance.errors import ApplianceError

State = Literal["ok", "warn", "bad"]

GROUPS: Final = {
    "What leaves": ("remote",),
    "Software": ("version", "configuration", "units", "log"),
    "Machine": ("folders", "disk", "memory", "clock"),
    "Stored": ("database", "backup", "records", "embeddings", "quarantine", "learning"),
    "Model": ("model", "engine", "speed"),
    "Service": ("api", "certificate", "worker", "deliveries", "sign-ins", "limits"),
}
"""The page, from top to bottom."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``bad`` is broken or about to break, ``warn`` wants somebody's eye; ``hint`` is what to
    do."""

    what: str
    state: State
    detail: str
    hint: str = ""


def bad(what: str, error: ApplianceError) -> Finding:
    """A finding of what an error says."""
    return Finding(what, "bad", error.detail, error.hint)


def grouped(findings: Iterable[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    """The page's groups that have findings, in order."""
    known = list(findings)
    for group, names in GROUPS.items():
        here = [finding for name in names for finding in known if finding.what == name]
        if here:
            yield group, here

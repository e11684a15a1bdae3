"""One thing looked at, and the page it stands on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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


def bad(what: str, error: Exception) -> Finding:
    """A finding of what an error says, or, of one that nobody foresaw, what kind it is: its words
    may quote what was stored."""
    if isinstance(error, ApplianceError):
        return Finding(what, "bad", error.detail, error.hint)
    if isinstance(error, OSError):
        where = error.filename or "a file"
        return Finding(what, "bad", f"{where}: {error.strerror}.", "Check the disk.")
    detail = f"the look at it failed: {type(error).__name__}"
    return Finding(what, "bad", detail, "What is stored of it is damaged; docs/operations.md.")


Look = Callable[[], list[Finding]]


def guarded(what: str, look: Look) -> list[Finding]:
    """What a look found; one that fails is a finding, whatever failed."""
    try:
        return look()
    except Exception as error:  # the page is read when anything may be damaged
        return [bad(what, error)]


def grouped(findings: Iterable[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    """The page's groups that have findings, in order."""
    known = list(findings)
    for group, names in GROUPS.items():
        here = [finding for name in names for finding in known if finding.what == name]
        if here:
            yield group, here

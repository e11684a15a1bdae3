"""Versions of the heads in the data folder: a file each, and a note of which one is in charge.

Version 0 is what is shipped. The note is replaced whole, so readers in other processes see the old
state or the new one; writers hold the lock that the service takes.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from appliance.domain.policy import VERSIONS_KEPT
from appliance.logs import get_logger
from appliance.understanding import heads
from appliance.understanding.heads import Head
from appliance.understanding.learnt import HEADS, Learnt, LearntHead
from appliance.understanding.recall import remember

log = get_logger()

PARTS = ("head", "recall", "judged", "judged_recall")


class VersionNote(msgspec.Struct, frozen=True):
    """What is known of a version. ``verdicts`` as ``learning.Verdict``, ``at`` in ISO 8601."""

    version: int
    at: str
    fits: str
    digest: str
    verdicts: list[dict[str, Any]]


class Candidate(msgspec.Struct, frozen=True):
    """What became of the latest candidate; ``version`` is None where nothing of it was kept."""

    at: str
    seconds: float
    version: int | None
    verdicts: list[dict[str, Any]]


class Standing(msgspec.Struct, frozen=True):
    """The note. ``settled`` names the examples on which was decided, by a candidate or by a
    rollback: nothing is learnt from the very same again. ``since`` is when ``in_charge`` came."""

    in_charge: int = 0
    since: str | None = None
    settled: str | None = None
    versions: list[VersionNote] = []
    latest: Candidate | None = None

    def version(self, number: int) -> VersionNote | None:
        """The note of a version that is kept."""
        return next((note for note in self.versions if note.version == number), None)


class HeadVersions:
    """The versions in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = folder / "learning.lock"
        self._note = folder / "learning.json"

    def stamp(self) -> tuple[int, int] | None:
        """Changes with the note; one look at the file system, cheap enough for every query."""
        try:
            found = os.stat(self._note)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    def standing(self) -> Standing:
        """The note; a damaged one counts as none."""
        try:
            return msgspec.json.decode(self._note.read_bytes(), type=Standing)
        except FileNotFoundError:
            return Standing()
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("learning_note_damaged", error=str(error))
            return Standing()

    def write(self, standing: Standing) -> None:
        """Replace the note.

        :raises OSError: it cannot be written.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._note.with_name(f".{self._note.name}.{os.getpid()}")
        with temporary.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(standing)))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._note)

    def path(self, number: int) -> Path:
        """Where a version lies."""
        return self.folder / f"learned-{number:04}.npz"

    def load(self, note: VersionNote) -> Learnt | None:
        """A version; None where its file is missing, damaged or another than was noted."""
        found = heads.load(self.path(note.version), note.fits)
        if found is None or heads.digest(found) != note.digest:
            return None
        parts = {name: [found.get(f"{name}-{part}") for part in PARTS] for name in HEADS}
        if any(each[0] is None or each[2] is None for each in parts.values()):
            return None
        return {name: LearntHead(*each) for name, each in parts.items()}  # type: ignore[arg-type]

    def save(self, number: int, fits: str, learnt: Learnt) -> str:
        """Store a version; its digest.

        :param fits: what it can be used with: encoder and features.
        :raises OSError: it cannot be written.
        """
        parts = _parts(learnt)
        heads.save(parts, fits, self.path(number))
        return heads.digest(parts)

    def tidy(self, standing: Standing, known: Collection[bytes]) -> Standing:
        """Keep the latest versions and the one in charge, and of what they recall only messages
        that the desk still has: who is forgotten is forgotten by every version.

        :param known: ``row_key`` of all that may be recalled.
        """
        latest = sorted(standing.versions, key=lambda note: note.version)
        kept = [
            note
            for at, note in enumerate(latest)
            if at >= len(latest) - VERSIONS_KEPT or note.version == standing.in_charge
        ]
        for note in latest:
            if note not in kept:
                self.path(note.version).unlink(missing_ok=True)
        notes = [self._without_forgotten(note, known) for note in kept]
        return msgspec.structs.replace(standing, versions=notes)

    def _without_forgotten(self, note: VersionNote, known: Collection[bytes]) -> VersionNote:
        learnt = self.load(note)
        if learnt is None:
            return note
        fewer = {
            name: replace(
                each,
                recall=_only(each.recall, known),
                judged_recall=_only(each.judged_recall, known),
            )
            for name, each in learnt.items()
        }
        if heads.digest(_parts(fewer)) == note.digest:
            return note
        digest = self.save(note.version, note.fits, fewer)
        return msgspec.structs.replace(note, digest=digest)


def row_key(vector: heads.Floats, text: str) -> bytes:
    """What a recalled message is known by: its row, to the byte."""
    return bytes(remember(vector[None], [text], [""]).weights[0].tobytes())


def _parts(learnt: Learnt) -> dict[str, Head]:
    return {
        f"{name}-{part}": head
        for name, each in learnt.items()
        for part in PARTS
        if (head := getattr(each, part)) is not None
    }


def _only(recall: Head | None, known: Collection[bytes]) -> Head | None:
    if recall is None:
        return None
    at = [i for i, row in enumerate(recall.weights) if row.tobytes() in known]
    if not at:
        return None
    labels = tuple(recall.labels[i] for i in at)
    return Head(labels, recall.weights[at], np.zeros(len(at), dtype=np.float32))

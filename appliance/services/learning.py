"""Heads that learn from the desk: retraining, what is in charge, rolling back.

``watch`` runs in the appliance's process: soon after the last correction a candidate is trained in
a thread of low priority, judged, and put in charge where it does not lose. Commands in other
processes do the same under the same lock; whoever reads messages notices at the next one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from appliance.domain.examples import Example, Labelled, Teaching, teaching
from appliance.domain.policy import LEARN_LOOK_SECONDS, LEARN_QUIET_SECONDS
from appliance.domain.ports import Encoder
from appliance.errors import Conflict, NotFound, StorageUnavailable
from appliance.logs import get_logger
from appliance.services.access import Principal
from appliance.storage.database import Database, Records
from appliance.storage.records import LabelledMessage
from appliance.understanding.current import CurrentReader
from appliance.understanding.heads import Floats
from appliance.understanding.learning import Verdict, learn
from appliance.understanding.learnt import HEADS, Learnt
from appliance.understanding.reader import read_examples
from appliance.understanding.vectors import VectorFile, lookup, vector_key
from appliance.understanding.versions import (
    Candidate,
    HeadVersions,
    Standing,
    VersionNote,
    row_key,
)

log = get_logger()

Lock = Callable[[Path], AbstractContextManager[bool]]
"""Tries to hold the lock of that name among all processes; False when another one holds it."""

ENCODED_AT_ONCE = 8
"""New texts encoded in one go: customers' questions wait behind them in the embedder's thread."""
NICENESS = 5
"""Of the training thread: whoever waits for an answer goes first, and yet it takes seconds only."""


@dataclass(frozen=True, slots=True)
class Retrained:
    """What a retraining did. ``version`` is in charge now; ``switched`` says whether it is a new
    one; without verdicts the candidate would have read everything as the one in charge does."""

    version: int
    switched: bool
    seconds: float
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class LearningStatus:
    """What the desk has taught and what reads now.

    ``examples`` counts texts by head and label, ``sources`` by where they came from, ``golden``
    those that the golden set keeps from training, ``judges`` those of the gate. ``pending``:
    something was said since the latest decision.
    """

    version: int
    since: str | None
    usable: bool
    examples: dict[str, dict[str, int]]
    sources: dict[str, int]
    golden: int
    judges: int
    pending: bool
    versions: list[VersionNote]
    latest: Candidate | None


class Learning:
    """What needs no encoder: status and rolling back.

    :param shipped: the file of shipped examples.
    :param lock: see ``Lock``; bootstrap gives it.
    """

    def __init__(
        self, database: Database, versions: HeadVersions, shipped: Path, lock: Lock
    ) -> None:
        self._database = database
        self._versions = versions
        self._shipped = shipped
        self._lock = lock

    async def status(self) -> LearningStatus:
        """See ``LearningStatus``."""
        rows, golden = await self._database.read(
            lambda records: (records.examples.list(), records.golden.keys())
        )
        desk = teaching(map(_example, rows), golden)
        standing = self._versions.standing()
        note = standing.version(standing.in_charge)
        labels = {name: Counter(getattr(e, name) for e in desk.taught) for name in HEADS}
        return LearningStatus(
            version=standing.in_charge,
            since=standing.since,
            usable=not standing.in_charge
            or (note is not None and self._versions.load(note) is not None),
            examples={
                name: {str(label): n for label, n in sorted(found.items(), key=str) if label}
                for name, found in labels.items()
            },
            sources=dict(Counter(row.source for row in rows)),
            golden=desk.withheld,
            judges=len(desk.judges),
            pending=self._is_unsettled(standing, desk),
            versions=standing.versions,
            latest=standing.latest,
        )

    async def rollback(self, principal: Principal, number: int | None = None) -> int:
        """Put an earlier version in charge, by default the one before; 0 is what is shipped. It
        stays until there is something new to learn from, or somebody retrains.

        :raises Forbidden: the principal is no administrator.
        :raises NotFound: there is no such version.
        :raises Conflict: it is in charge already, its file is damaged, or the heads are being
            trained right now.
        """
        principal.require("admin")
        with self._held():
            standing = self._versions.standing()
            if number is None:
                earlier = [n.version for n in standing.versions if n.version < standing.in_charge]
                number = max(earlier, default=0)
            if number == standing.in_charge:
                raise Conflict(f"Version {number} is in charge already.")
            note = standing.version(number)
            if number and note is None:
                raise NotFound(f"There is no version {number} of the heads.")
            if note is not None and self._versions.load(note) is None:
                raise Conflict(f"The file of version {number} is damaged.")
            settled = self._named(await self._database.read(taught))
            await self._switch(
                principal.owner,
                "learn.rollback",
                standing,
                msgspec.structs.replace(standing, in_charge=number, settled=settled),
            )
        return number

    @contextmanager
    def _held(self) -> Iterator[None]:
        self._versions.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock(self._versions.lock) as free:
            if not free:
                raise Conflict(
                    "The heads are being trained right now.", hint="Try again in a few seconds."
                )
            yield

    def _named(self, desk: Teaching) -> str:
        """Another text for other examples, the desk's or the shipped ones."""
        content = [hashlib.sha256(self._shipped.read_bytes()).hexdigest(), asdict(desk)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _is_unsettled(self, standing: Standing, desk: Teaching) -> bool:
        """Whether there is something to decide on: never where nothing was said or learnt yet."""
        untouched = not standing.in_charge and not desk.taught and standing.settled is None
        return not untouched and standing.settled != self._named(desk)

    async def _switch(self, actor: str, action: str, before: Standing, after: Standing) -> None:
        """Put another version in charge, and write that down first: a switch that nobody knows of
        is worse than a note of one that failed."""
        change = {"from": before.in_charge, "to": after.in_charge}

        def work(records: Records) -> None:
            records.audit.add(actor, action, "heads", change)
            records.events.add("heads.switched", data={**change, "by": action})

        await self._database.write(work)
        self._write(msgspec.structs.replace(after, since=_now()))
        log.info("heads_switched", **change)

    def _write(self, standing: Standing) -> None:
        try:
            self._versions.write(standing)
        except OSError as error:
            raise _unwritable(error) from error


class Retraining(Learning):
    """Learning where the encoder is.

    :param current: the reader in charge.
    :param vectors: where vectors of examples are kept.
    """

    def __init__(
        self,
        database: Database,
        versions: HeadVersions,
        shipped: Path,
        lock: Lock,
        *,
        encoder: Encoder,
        current: CurrentReader,
        vectors: VectorFile,
    ) -> None:
        super().__init__(database, versions, shipped, lock)
        self._encoder = encoder
        self._current = current
        self._vectors = vectors
        self._alone: dict[Labelled, list[bool]] = {}
        self._thread = ThreadPoolExecutor(1, "learning", initializer=_be_nice)

    def close(self) -> None:
        """End the thread after the training under way."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def watch(self) -> None:
        """Retrain a moment after the last correction, for as long as this runs."""
        seen = done = None
        since = 0.0
        while True:
            await asyncio.sleep(LEARN_LOOK_SECONDS)
            try:
                stand = await self._database.read(_stand)
                if stand != seen:
                    seen, since = stand, time.monotonic()
                elif stand != done and time.monotonic() - since >= LEARN_QUIET_SECONDS:
                    if await self._is_due():
                        await self.retrain()
                    done = stand
            except (Conflict, StorageUnavailable) as error:
                log.warning("learning_waits", detail=error.detail)
            except Exception as error:  # one failed training must not end all learning
                log.error("learning_failed", error=repr(error), exc_info=True)
                done = seen

    async def _is_due(self) -> bool:
        standing = self._versions.standing()
        note = standing.version(standing.in_charge)
        unfit = standing.in_charge != 0 and (note is None or note.fits != self._current.fits)
        return unfit or self._is_unsettled(standing, await self._database.read(taught))

    async def retrain(self, actor: str = "appliance") -> Retrained:
        """Train a candidate from all there is now, judge it, and put it in charge where it does
        not lose.

        :raises Conflict: the heads are being trained already.
        :raises StorageUnavailable: the disk is full.
        """
        started = time.perf_counter()
        with self._held():
            desk = await self._database.read(taught)
            rows = read_examples(self._shipped)
            vectors = await self._vectors_of([row["text"] for row in rows], desk)
            learnt, verdicts = await self._in_thread(
                lambda: learn(
                    rows,
                    desk,
                    lookup(vectors, len(next(iter(vectors.values())))),
                    self._current.learnt,
                    {name: head.head for name, head in self._current.shipped.items()},
                    self._alone,
                )
            )
            seconds = round(time.perf_counter() - started, 3)
            known = {
                row_key(vector, example.text)
                for example in desk.taught
                for vector in (vectors[vector_key(example.text)],)
            }
            return await self._settle(actor, desk, known, learnt, verdicts, seconds)

    async def _settle(
        self,
        actor: str,
        desk: Teaching,
        known: Collection[bytes],
        learnt: Learnt,
        verdicts: tuple[Verdict, ...],
        seconds: float,
    ) -> Retrained:
        standing = self._versions.standing()
        switched = any(verdict.kept for verdict in verdicts)
        number = self._current.version
        told = [asdict(verdict) for verdict in verdicts]
        notes = list(standing.versions)
        if switched:
            number = self._number(learnt, standing)
        if number and standing.version(number) is None:
            fits = self._current.fits
            try:
                digest = self._versions.save(number, fits, learnt)
            except OSError as error:
                raise _unwritable(error) from error
            notes.append(VersionNote(number, _now(), fits, digest, told))
        after = msgspec.structs.replace(
            standing,
            in_charge=number,
            settled=self._named(desk),
            versions=notes,
            latest=Candidate(_now(), seconds, number if switched else None, told),
        )
        after = self._versions.tidy(after, known)
        if after.in_charge != standing.in_charge:
            await self._switch(actor, "learn.promote", standing, after)
        else:
            self._write(after)
        for verdict in verdicts:
            if not verdict.kept:
                log.warning("candidate_refused", head=verdict.head, why=verdict.why)
        return Retrained(number, switched, seconds, verdicts)

    def _number(self, learnt: Learnt, standing: Standing) -> int:
        """What the version is called: 0 where all that was learnt was taken back."""
        shipped = self._current.shipped
        if all(learnt[name].digest == shipped[name].digest for name in HEADS):
            return 0
        return max((note.version for note in standing.versions), default=0) + 1

    async def _vectors_of(self, shipped: Sequence[str], desk: Teaching) -> Mapping[str, Floats]:
        texts = dict.fromkeys([*shipped, *(e.text for e in (*desk.taught, *desk.judges))])
        known = await self._in_thread(self._vectors.load)
        new = [text for text in texts if vector_key(text) not in known]
        for at in range(0, len(new), ENCODED_AT_ONCE):
            batch = new[at : at + ENCODED_AT_ONCE]
            encoded = await self._encoder.encode(batch)
            known |= zip(map(vector_key, batch), encoded, strict=True)
        found = {vector_key(text): known[vector_key(text)] for text in texts}
        if found.keys() != known.keys() or new:
            try:
                await self._in_thread(lambda: self._vectors.save(found))
            except OSError as error:
                log.warning("vectors_not_saved", error=str(error))
        return found

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def taught(records: Records) -> Teaching:
    """What people have said so far, without the golden set."""
    return teaching(map(_example, records.examples.list()), records.golden.keys())


def _example(row: LabelledMessage) -> Example:
    return Example(row.text, row.category, row.sentiment, row.intent)


def _stand(records: Records) -> str:
    return f"{records.examples.stand()} {records.golden.stand()}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _unwritable(error: OSError) -> StorageUnavailable:
    return StorageUnavailable(
        f"The heads cannot be stored: {error.strerror}.", hint="Check the disk of the data folder."
    )


def _be_nice() -> None:
    """Lower the priority of this thread alone, which Linux allows."""
    thread = threading.get_native_id()
    nice = os.getpriority(os.PRIO_PROCESS, thread)
    os.setpriority(os.PRIO_PROCESS, thread, max(nice, NICENESS))

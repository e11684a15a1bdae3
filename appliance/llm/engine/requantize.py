"""Which type of the embedded weights is fastest here without being worse: measured once, kept.

The package carries Q4_1, for which this engine has no fast matrix kernels on x86. Other types of
the same weights are made here and put on trial, and the fastest whose answers and labels are not
worse than those of the file as shipped is served from then on.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from appliance.errors import ModelError, WeightsError
from appliance.llm.catalog import Entry
from appliance.llm.engine import cpu, llamacpp
from appliance.llm.engine.trial import Verdict, measure
from appliance.llm.templates import Template, template
from appliance.llm.weights import digest, write_json
from appliance.logs import get_logger

log = get_logger()

LIKELIHOOD_TOLERANCE: Final = 0.01
"""How much the mean log probability of a reference token may fall: 1 % of perplexity.

Types that keep the weights differ by 0.002 through rounding; Q4_0 made from Q4_1 falls by 0.17.
"""
ROOM_FACTOR: Final = 5
"""Free space needed, in sizes of the source.

BF16 takes 2.8 of them beside Q8_0's 1.5, and the desk keeps writing meanwhile.
"""


@dataclass(frozen=True, slots=True)
class Served:
    """The file to serve and its SHA-256."""

    path: Path
    sha256: str


class Key(msgspec.Struct, frozen=True):
    """What a choice holds for; anything else is measured again."""

    source_sha256: str
    cpu: str
    library: str


class Measured(msgspec.Struct, frozen=True):
    """One type: its file and what the trial found, or why there is none."""

    file_type: str
    file: str
    sha256: str = ""
    size: int = 0
    verdict: Verdict | None = None
    seconds: float = 0.0
    why_not: str = ""


class Choice(msgspec.Struct, frozen=True):
    """What was chosen, and everything it was chosen from."""

    key: Key
    chosen: str
    measured: list[Measured]
    likelihood_tolerance: float = LIKELIHOOD_TOLERANCE


@dataclass(frozen=True, slots=True)
class Bench:
    """How types are made and put on trial; tests put something quicker here."""

    quantize: Callable[..., None] = llamacpp.quantize
    measure: Callable[..., Verdict] = measure


def choose(
    entry: Entry,
    source: Served,
    folder: Path,
    *,
    threads: int,
    report: Callable[[str], None],
    bench: Bench | None = None,
) -> Served:
    """The file to serve for ``source``, which lies in ``folder`` or in its package.

    Never fails for lack of room or because a type cannot be made: then the file as shipped is
    served, and the log says why.
    """
    processor = cpu.processor()
    key = Key(source.sha256, processor.name, llamacpp.version())
    record = folder / f"{entry.name}.requantized.json"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(folder / f"{entry.name}.lock"):
            known = _remembered(record, key, folder, source)
            if known is not None:
                return known
            _sweep(folder, entry, keep=source.path)
            free = shutil.disk_usage(folder).free
            if free < ROOM_FACTOR * source.path.stat().st_size:
                # Not remembered: the next start may find room.
                log.warning("serving weights as shipped", why="no room for other types", free=free)
                return source
            types = ["Q8_0", "Q4_0", *(["BF16"] if processor.multiplies_bf16 else [])]
            trial = _Trials(entry, source, folder, threads, report, bench or Bench())
            choice = trial.run(key, types)
            if choice is None:
                log.warning("serving weights as shipped", why="no other type can be made")
                return source
            write_json(record, choice)
            chosen = next(m for m in choice.measured if m.file_type == choice.chosen)
            log.info("weights chosen", file_type=chosen.file_type, seconds=round(chosen.seconds, 3))
            return (
                source
                if chosen.file == source.path.name
                else Served(folder / chosen.file, chosen.sha256)
            )
    except OSError as error:
        log.warning("serving weights as shipped", why=str(error))
        return source


class _Trials:
    """Makes and measures one type after the other; only the best so far and a new one exist."""

    def __init__(
        self,
        entry: Entry,
        source: Served,
        folder: Path,
        threads: int,
        report: Callable[[str], None],
        bench: Bench,
    ) -> None:
        self._entry = entry
        self._template: Template = template(entry.template)
        self._source = source
        self._folder = folder
        self._threads = threads
        self._report = report
        self._bench = bench

    def run(self, key: Key, types: list[str]) -> Choice | None:
        """Measure the shipped type and ``types``; only the chosen file is left.

        None if no type can be made.

        :raises WeightsError: not even the file as shipped can be loaded.
        """
        shipped: Measured | None = None
        measured: list[Measured] = []
        for file_type in types:
            path = self._make(file_type)
            if isinstance(path, Measured):
                measured.append(path)
                continue
            if shipped is None:
                # Not before there is something to compare: on a full disk a start should be quick.
                best = shipped = self._measure(
                    self._entry.quant, self._source.path, self._source.sha256
                )
            candidate = self._try(file_type, path, shipped)
            measured.append(candidate)
            if candidate.why_not or candidate.seconds >= best.seconds:
                self._remove(candidate)
            else:
                self._remove(best)
                best = candidate
        return Choice(key, best.file_type, [shipped, *measured]) if shipped else None

    def _make(self, file_type: str) -> Path | Measured:
        """The new file, or why there is none."""
        target = self._folder / f"{self._entry.name}.{file_type}.gguf"
        partial = target.with_suffix(".part")
        try:
            self._report(f"making {file_type}")
            self._bench.quantize(self._source.path, partial, file_type, threads=self._threads)
            return partial.replace(target)
        except (OSError, WeightsError) as error:
            log.warning("type not made", file_type=file_type, why=str(error))
            partial.unlink(missing_ok=True)
            return Measured(file_type, target.name, why_not=str(error))

    def _try(self, file_type: str, path: Path, shipped: Measured) -> Measured:
        try:
            candidate = self._measure(file_type, path, digest(path))
        except (OSError, WeightsError, ModelError) as error:
            log.warning("type not measured", file_type=file_type, why=str(error))
            return Measured(file_type, path.name, why_not=str(error))
        return msgspec.structs.replace(candidate, why_not=_worse(candidate, shipped))

    def _measure(self, file_type: str, path: Path, sha256: str) -> Measured:
        self._report(f"measuring {file_type}")
        verdict = self._bench.measure(path, self._template, threads=self._threads)
        log.info("type measured", file_type=file_type, **msgspec.structs.asdict(verdict))
        size = path.stat().st_size
        return Measured(file_type, path.name, sha256, size, verdict, verdict.seconds)

    def _remove(self, measured: Measured) -> None:
        if measured.file != self._source.path.name:
            (self._folder / measured.file).unlink(missing_ok=True)


def _worse(candidate: Measured, shipped: Measured) -> str:
    """In which way a type is worse than the file as shipped; empty when it is not."""
    new, old = candidate.verdict, shipped.verdict
    if new is None or old is None:
        return "not measured"
    if new.right < old.right:
        return f"labels: {new.right} right of {new.asked}, {old.right} as shipped"
    if new.likelihood < old.likelihood - LIKELIHOOD_TOLERANCE:
        return f"answers: log probability {new.likelihood:.3f}, {old.likelihood:.3f} as shipped"
    return ""


def _remembered(record: Path, key: Key, folder: Path, source: Served) -> Served | None:
    """What was chosen at an earlier start, if it holds here and the file is what it was."""
    try:
        choice = msgspec.json.decode(record.read_bytes(), type=Choice)
        chosen = next(m for m in choice.measured if m.file_type == choice.chosen)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, StopIteration) as error:
        log.warning("choice of weights not readable", why=str(error))
        return None
    if choice.key != key:
        return None
    if chosen.sha256 == source.sha256:
        return source
    path = folder / chosen.file
    if path.is_file() and digest(path) == chosen.sha256:
        return Served(path, chosen.sha256)
    log.warning("chosen weights are gone or damaged", file=chosen.file)
    return None


def _sweep(folder: Path, entry: Entry, *, keep: Path) -> None:
    """Remove what an interrupted start or an earlier choice left behind."""
    for path in folder.glob(f"{entry.name}.*"):
        if path.suffix in (".gguf", ".part") and path != keep:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait for another engine at the same weights; the kernel ends the lock with the process."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

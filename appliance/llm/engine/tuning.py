"""How many threads serve a model best on this machine, and whether drafts pay: measured, kept.

More threads are not faster everywhere. Two threads on the two halves of one core gain little, and
on cores that are busy with something else they wait for each other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from appliance.errors import ModelError, WeightsError
from appliance.llm.engine import cpu, llamacpp
from appliance.llm.engine.llamacpp import Context, Model
from appliance.llm.engine.lookup import DRAFT
from appliance.llm.engine.work import Threads
from appliance.llm.weights import write_json
from appliance.logs import get_logger

log = get_logger()

GAIN_MIN: Final = 1.1
"""How much faster more threads must be: the cores also serve the API."""
DRAFT_COST_MAX: Final = 5.0
"""Most single tokens that checking a draft may cost: drafts that go on come true for six of seven
tokens in copied sentences, and one in three drafts fails."""
PATIENCE_SECONDS: Final = 5.0
"""A customer who waits longer for an answer looks for a telephone."""
PROMPT_TOKENS: Final = 120
ANSWER_TOKENS: Final = 40
SENTENCE_TOKENS: Final = 20
"""A query of the desk: what is new in its prompt, and what is written for it."""
_READ = 128
_WARM_UP = 16
_REPETITIONS = 7


class Key(msgspec.Struct, frozen=True):
    """What a measurement holds for; anything else is measured again."""

    sha256: str
    cpu: str
    cores: int
    library: str


class Measured(msgspec.Struct, frozen=True):
    """Shortest times in seconds with this many threads."""

    threads: int
    one_token: float
    draft: float
    read: float


class Tuning(msgspec.Struct, frozen=True):
    """What was chosen, and what it was chosen from."""

    single: int
    batch: int
    drafts: bool
    measured: list[Measured] = []
    key: Key | None = None

    @property
    def threads(self) -> Threads:
        """The threads to serve with."""
        return Threads(self.single, self.batch)


class Capacity(msgspec.Struct, frozen=True):
    """What a box should carry, worked out from its tuning."""

    customers_at_once: int
    """Customers whose answers are ready within ``PATIENCE_SECONDS`` when all ask together."""
    first_words: float
    """Seconds until one customer sees the first sentence from an article."""


def capacity(tuning: Tuning) -> Capacity | None:
    """What this box should carry; None where nothing was measured."""
    by_threads = {measured.threads: measured for measured in tuning.measured}
    batch, single = by_threads.get(tuning.batch), by_threads.get(tuning.single)
    if batch is None or single is None:
        return None
    reading = PROMPT_TOKENS * batch.read / _READ
    writing = ANSWER_TOKENS * batch.draft / (DRAFT + 1)
    at_once = max(1, int(PATIENCE_SECONDS / (reading + writing)))
    return Capacity(at_once, round(reading + SENTENCE_TOKENS * single.one_token, 2))


def tune(
    path: Path, sha256: str, record: Path, *, cores: int, report: Callable[[str], None]
) -> Tuning:
    """The tuning for a file of weights, remembered in ``record``. Takes some seconds at first.

    Never fails: what cannot be measured is served with a thread a core.
    """
    key = Key(sha256, cpu.processor().name, cores, llamacpp.version())
    known = _remembered(record, key)
    if known is not None:
        return known
    report("measuring threads")
    try:
        measured = [_measure(path, threads) for threads in candidates(cores)]
    except (ModelError, WeightsError) as error:
        log.warning("threads not measured", why=error.detail)
        return Tuning(cores, cores, drafts=False)
    chosen = decide(measured, key)
    log.info("threads chosen", single=chosen.single, batch=chosen.batch, drafts=chosen.drafts)
    try:
        write_json(record, chosen)
    except OSError as error:
        log.warning("threads not remembered", why=str(error))
    return chosen


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def candidates(cores: int) -> list[int]:
    """Numbers of threads worth a try, fewest first: all cores, half of them, and down to one."""
    tries = {cores}
    while cores > 1:
        cores //= 2
        tries.add(cores)
    return sorted(tries)


def decide(measured: list[Measured], key: Key) -> Tuning:
    """The fewest threads beside which more gain nothing worth a core."""
    single = _fewest(measured, lambda m: m.one_token)
    batch = _fewest(measured, lambda m: m.read)
    # A draft is a batch, so the cost of checking one is with the threads of batches.
    draft = next(m for m in measured if m.threads == batch).draft
    alone = next(m for m in measured if m.threads == single).one_token
    return Tuning(single, batch, draft <= DRAFT_COST_MAX * alone, measured, key)


def _fewest(measured: list[Measured], seconds: Callable[[Measured], float]) -> int:
    best = measured[0]
    for more in measured[1:]:
        if seconds(best) >= GAIN_MIN * seconds(more):
            best = more
    return best.threads


def _measure(path: Path, threads: int) -> Measured:
    model = Model(path)
    try:
        context = Context(model, length=512, batch=_READ, threads=Threads(threads, threads))
        try:
            tokens = list(range(100, 100 + _READ))

            def seconds(count: int, start: int) -> float:
                times = []
                for _ in range(_REPETITIONS):
                    context.forget(start)
                    began = time.perf_counter()
                    context.decode(tokens[:count], start, every=start > 0)
                    times.append(time.perf_counter() - began)
                # The quickest: whatever else the machine did can only have made it slower.
                return min(times)

            context.decode(tokens[:_WARM_UP], 0)
            read = seconds(_READ, 0)
            one, draft = seconds(1, _READ), seconds(DRAFT + 1, _READ)
        finally:
            context.close()
    finally:
        model.close()
    return Measured(threads, one, draft, read)


def _remembered(record: Path, key: Key) -> Tuning | None:
    try:
        known = msgspec.json.decode(record.read_bytes(), type=Tuning)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("threads not readable", why=str(error))
        return None
    return known if known.key == key else None

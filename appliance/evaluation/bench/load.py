"""Many customers at once against one running desk: what fails, how long ``/health`` takes
meanwhile, and whether memory grows."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import numpy as np

CLIENT_SECONDS: Final = 120.0
"""Longest that a client waits for an answer: what takes longer is an error, a timeout."""
PROBE_SECONDS: Final = 0.1
SAMPLE_SECONDS: Final = 0.5
WARM_SHARE: Final = 0.25
"""Share of the run after which memory counts: caches fill up to their bounds before."""
WAIT_MAX: Final = 2.0
"""Longest that a client told to wait does: the run has to end."""


@dataclass(slots=True)
class _Heard:
    answered: list[float] = field(default_factory=list)
    told_to_wait: int = 0
    without_retry_after: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)


async def load(
    url: str, key: str, pid: int, texts: Sequence[str], *, clients: int, seconds: float
) -> dict[str, Any]:
    """Let so many clients ask for so many seconds, each its next question once the last is
    answered.

    :param pid: the process whose memory is watched.
    """
    heard = _Heard()
    stop = threading.Event()
    probes: list[float] = []
    failures: Counter[str] = Counter()
    prober = threading.Thread(target=_probe, args=(url, stop, probes, failures), daemon=True)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
    memory: list[tuple[float, float]] = []
    async with httpx.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=CLIENT_SECONDS,
        limits=limits,
        trust_env=False,
    ) as client:
        prober.start()
        started = time.monotonic()
        watching = asyncio.create_task(_watch(pid, memory))
        try:
            await asyncio.gather(
                *(_client(client, n, texts, started + seconds, heard) for n in range(clients))
            )
        finally:
            watching.cancel()
            stop.set()
            await asyncio.to_thread(prober.join)
        took = time.monotonic() - started
    return {
        "clients": clients,
        "seconds": round(took, 1),
        "answered": len(heard.answered),
        "answered_a_second": round(len(heard.answered) / took, 1),
        "modes": dict(heard.modes),
        "told_to_wait": heard.told_to_wait,
        "told_to_wait_without_retry_after": heard.without_retry_after,
        "other_errors": dict(heard.errors + failures),
        "answer_seconds": _percentiles(heard.answered),
        "health_seconds": _percentiles(probes),
        "health_probes": len(probes),
        "memory_mib": _growth(memory),
    }


async def _client(
    client: httpx.AsyncClient, number: int, texts: Sequence[str], until: float, heard: _Heard
) -> None:
    turn = number
    while time.monotonic() < until:
        body = {"user_id": f"load-{number}", "message": texts[turn % len(texts)]}
        turn += 1
        began = time.monotonic()
        try:
            answer = await client.post("/api/v1/query", json=body)
        except httpx.HTTPError as error:
            heard.errors[type(error).__name__] += 1
            continue
        if answer.status_code == 200:
            heard.answered.append(time.monotonic() - began)
            heard.modes[answer.json()["metadata"]["mode"]] += 1
        elif answer.status_code == 429:
            heard.told_to_wait += 1
            after = answer.headers.get("retry-after", "")
            heard.without_retry_after += not after.isdigit()
            await asyncio.sleep(min(WAIT_MAX, float(after or 1)))
        else:
            heard.errors[str(answer.status_code)] += 1


def _probe(url: str, stop: threading.Event, took: list[float], failures: Counter[str]) -> None:
    """Ask ``/health`` again and again, from a thread: the clients' own waiting is not measured."""
    address = urlsplit(url)
    while not stop.is_set():
        began = time.monotonic()
        connection = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=CLIENT_SECONDS
        )
        try:
            connection.request("GET", "/api/v1/health")
            if connection.getresponse().status != 200:
                failures["health"] += 1
        except OSError:
            failures["health"] += 1
        finally:
            connection.close()
        took.append(time.monotonic() - began)
        stop.wait(PROBE_SECONDS)


async def _watch(pid: int, memory: list[tuple[float, float]]) -> None:
    while True:
        with contextlib.suppress(OSError, StopIteration, ValueError):
            status = Path(f"/proc/{pid}/status").read_text()
            line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
            memory.append((time.monotonic(), int(line.split()[1]) / 1024))
        await asyncio.sleep(SAMPLE_SECONDS)


def _growth(memory: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Memory of the server: after the warm-up, at the end, and how fast it grew between them."""
    if len(memory) < 4:
        return {}
    warm = memory[int(len(memory) * WARM_SHARE) :]
    slope = statistics.linear_regression([at for at, _ in warm], [mib for _, mib in warm]).slope
    return {
        "warm": round(warm[0][1], 1),
        "end": round(warm[-1][1], 1),
        "growth_a_minute": round(60 * slope, 2),
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    return {f"p{q}": round(float(np.percentile(seconds, q)), 4) for q in (50, 95, 99)} | {
        "max": round(max(seconds), 4)
    }

"""``appliance bench --clients``: a desk on the scripted twin, and many customers at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click

from appliance.cli.output import table
from appliance.errors import ApplianceError

START_SECONDS = 180.0


async def measure(clients: int, seconds: float, *, hashed: bool = False) -> dict[str, Any]:
    """Start a desk in a process of its own, ask it for so long, and say how it went."""
    import tempfile

    from appliance.evaluation.bench.load import load
    from appliance.evaluation.golden import read_golden
    from appliance.settings import HOME

    texts = [item.text for item in read_golden(HOME / "kb" / "golden.jsonl") if not item.history]
    with tempfile.TemporaryDirectory(prefix="appliance-load-") as folder:
        async with scripted_desk(Path(folder), hashed=hashed) as desk:
            return await load(**desk, texts=texts, clients=clients, seconds=seconds)


@asynccontextmanager
async def scripted_desk(folder: Path, *, hashed: bool = False) -> AsyncIterator[dict[str, Any]]:
    """A running desk: its ``url``, an administrator's ``key`` and its ``pid``.

    :raises ApplianceError: it does not come up; its log says why.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "appliance.cli.scripted_desk", str(folder / "data")),
            *(str(port), "hashed" if hashed else "embedded"),
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )
    try:
        assert process.stdout is not None
        line = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                line = await process.stdout.readline()
        if not line:
            raise ApplianceError("The desk does not come up.", hint=f"{log.read_text()[-2000:]}")
        yield json.loads(line)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def show(card: dict[str, Any]) -> None:
    """Print the figures for people."""
    click.echo(
        f"{card['clients']} clients for {card['seconds']} s: {card['answered']} answers "
        f"({card['answered_a_second']} a second), {card['told_to_wait']} told to wait, "
        f"other errors: {card['other_errors'] or 'none'}\n"
    )
    rows = [
        (name, *(told.get(q, "") for q in ("p50", "p95", "p99", "max")))
        for name, told in (("answers", card["answer_seconds"]), ("/health", card["health_seconds"]))
    ]
    table(("seconds", "p50", "p95", "p99", "max"), rows)
    if memory := card["memory_mib"]:
        click.echo(
            f"\nmemory: {memory['warm']} MiB after the warm-up, {memory['end']} MiB at the end, "
            f"{memory['growth_a_minute']} MiB a minute"
        )

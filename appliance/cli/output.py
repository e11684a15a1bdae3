"""How commands speak: one JSON document or readable lines on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from appliance.settings import Settings
    from appliance.storage.database import Database

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """``--json``: one JSON document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def prepare(process: str) -> Settings:
    """Settings, switches for silence, and logs of a command or a process."""
    from appliance.logs import configure_logs, get_logger
    from appliance.settings import enforce_offline, load_settings, unknown_variables

    enforce_offline()
    settings = load_settings()
    # People read a command's own words; its log speaks up only when something is wrong.
    serving = process in ("api", "engine", "up", "worker")
    configure_logs(settings.log_level if serving else "warning", process=process)
    for name in unknown_variables():
        get_logger().warning("unknown_setting", name=name)
    return settings


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    import asyncio

    return asyncio.run(work)


def require_open() -> None:
    """Of commands that use the desk's content.

    :raises Conflict: an upgrade is under way, in which what they write would be lost.
    """
    from appliance.errors import Conflict
    from appliance.operations.release import door

    if door.is_shut():
        raise Conflict(
            "An upgrade is under way.",
            hint="Wait for its end; 'appliance release status' tells which release serves, and "
            "'appliance release recover' ends one that was killed.",
        )


def with_database(process: str, work: Callable[[Database], Awaitable[T]]) -> T:
    """Run work on the database, which has to be there and migrated."""
    settings = prepare(process)
    require_open()
    from appliance.jobs.waking import waker
    from appliance.settings import ensure_folders
    from appliance.storage.database import Database

    ensure_folders(settings)
    wake = waker(settings)

    async def working() -> T:
        database = Database(settings.resolved_database_url, wake=wake)
        try:
            await database.check()
            return await work(database)
        finally:
            await database.aclose()
            wake.close()

    return run(working())


def print_json(document: Any) -> None:
    """One JSON document."""
    import msgspec

    click.echo(json.dumps(msgspec.to_builtins(document), indent=2, ensure_ascii=False))


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Aligned columns."""
    lines = [list(headers), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(line[at]) for line in lines) for at in range(len(headers))]
    for line in lines:
        click.echo("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


def note(text: str) -> None:
    """A line for people that must not disturb a program reading stdout."""
    click.echo(text, err=True)


def progress(length: int, label: str) -> Any:
    """A progress bar on stderr; silent where stderr is no terminal."""
    return click.progressbar(range(length), label=label, file=sys.stderr)


def fail(detail: str, hint: str = "") -> None:
    """The one shape of errors: a line and a hint."""
    note(f"error: {detail}")
    if hint:
        note(f"hint: {hint}")

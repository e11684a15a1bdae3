"""Fixtures of the chaos tests, and their figures in the summary at the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.units import Units
from tests.webhook_receivers import Receiver

FIGURES = "chaos figures"

MakeUnits = Callable[..., Units]


@pytest.fixture
def make_units(prepared_home: Path) -> Iterator[MakeUnits]:
    """Make appliances that are about to be broken; they are ended afterwards."""
    made: list[Units] = []

    def make(*, start: bool = True, **options: Any) -> Units:
        desk = Units(prepared_home, **options)
        made.append(desk)
        desk.fill()
        if start:
            desk.start()
        return desk

    try:
        yield make
    finally:
        for desk in made:
            desk.clean()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that takes everything, and keeps it."""
    with Receiver() as running:
        yield running


@pytest.fixture
def show(record_property: Callable[[str, object], None]) -> Callable[[object], None]:
    """Have a line in the summary: figures that somebody wants to read after a run that passed."""
    return lambda line: record_property(FIGURES, str(line))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {value}"
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == FIGURES and getattr(report, "when", "") == "call"
    ]
    if lines:
        terminalreporter.section("What was broken and what was left")
        for line in lines:
            terminalreporter.write_line(line)

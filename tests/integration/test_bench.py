"""The bench at its smallest: every figure is there, and the ratios mean what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.appliance_process import clean_environment
from tests.engine_process import link_weights

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def card(engine_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("bench")
    link_weights(engine_home, home)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "appliance",
            "bench",
            "--quick",
            "--queries",
            "9",
            "--baseline",
            "--json",
        ],
        env=clean_environment(APPLIANCE_DATA_DIR=str(home)),
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_the_engine_stands_beside_its_limit(card: dict[str, Any]) -> None:
    for rates in (card["engine"]["reading"], *_rates(card)):
        assert rates["raw"] > 0
        assert rates["engine"] > 0
        assert rates["ratio"] > 0.2
    assert card["engine"]["first_token"]["p50"] > 0


def test_whole_queries_are_told_by_mode_and_stage(card: dict[str, Any]) -> None:
    assert set(card["one_customer"]) == {"curated", "drafted", "quoted"} == set(card["at_once"])
    assert set(card["one_customer"]["quoted"]["modes"]) <= {"quoted", "curated"}
    assert "retrieve_kb" in card["one_customer"]["drafted"]["stages"]
    assert card["at_once"]["drafted"]["queries_a_second"] > 0
    assert card["without_model"]["seconds"]["p50"] < card["pipeline"]["seconds"]["p50"]
    assert card["this_box"]["customers_at_once"] >= 1
    assert all(mib > 50 for mib in card["memory_mib"].values())


def test_the_pipeline_reads_much_more(card: dict[str, Any]) -> None:
    """Counted, so that a busy machine changes nothing."""
    assert card["pipeline"]["ratios"]["prompt_tokens"] <= 0.5
    assert card["pipeline"]["tokens_generated"] > card["one_customer"]["quoted"]["tokens_generated"]


def _rates(card: dict[str, Any]) -> list[dict[str, float]]:
    return [rates for both in card["engine"]["streams"].values() for rates in both.values()]

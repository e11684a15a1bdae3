"""The judge on sentences of which people know whether their passage supports them: corrupted ones
and true rewordings, of many trades."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from appliance.evaluation.judge import judge_report, read_pairs

FOLDER = Path(__file__).parents[1] / "judge"
FILES = sorted(FOLDER.glob("*.jsonl"))

REJECTED_MIN = 0.98
KEPT_MIN = 0.90


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_corruptions_are_rejected(file: Path) -> None:
    report = judge_report(read_pairs(file))
    assert report["rejected"]["share"] >= REJECTED_MIN, report["rejected"]


def test_true_rewordings_of_the_development_pairs_are_kept() -> None:
    report = judge_report(read_pairs(FOLDER / "development.jsonl"))
    assert report["kept"]["share"] >= KEPT_MIN, report["kept"]


@pytest.mark.xfail(reason="kept of the held-out rewordings: .30; the aim is .90", strict=True)
def test_true_rewordings_of_the_held_out_pairs_are_kept() -> None:
    # Sentences are not shown: whoever reads those of the held-out pairs cannot be measured on them.
    report = judge_report(read_pairs(FOLDER / "heldout.jsonl"))
    assert report["kept"]["share"] >= KEPT_MIN, report["kept"]


def test_the_development_pairs_are_many_and_of_every_kind() -> None:
    pairs = read_pairs(FOLDER / "development.jsonl")
    kinds = Counter(pair.kind for pair in pairs)
    assert sum(not pair.supported for pair in pairs) >= 200
    assert sum(pair.supported for pair in pairs) >= 200
    assert len({pair.passage for pair in pairs}) >= 50
    corruptions = ("number", "negation", "entity", "step", "condition", "modality", "scope")
    assert all(kinds[kind] >= 20 for kind in corruptions), kinds

"""Two runs side by side, against chances worked out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.errors import InvalidInput
from appliance.evaluation.compare import RISK, Change, Comparison, Report, compare
from appliance.evaluation.scoring import Result, Scores


def result(key: str, scores: Scores) -> Result:
    return Result(key, key, "mail", {}, {}, "answered", "curated", "Well.", 0.1, scores)


def report(scored: Sequence[Scores], *, names: Sequence[str] | None = None) -> Report:
    """A run in which the queries have these scores."""
    keys = names or [f"query-{at}" for at in range(len(scored))]
    items = [result(key, scores) for key, scores in zip(keys, scored, strict=True)]
    return Report("a run", {"n": len(items), "items": msgspec.to_builtins(items)})


def hits(figure: str, marks: str) -> Report:
    """A run told by a mark for each query: + right, - wrong, and a space where it does not
    count."""
    return report([{figure: [float(mark == "+")]} if mark != " " else {} for mark in marks])


def change(compared: Comparison, figure: str = "category.accuracy") -> Change:
    return next(one for one in compared.changes if one.figure == figure)


def accuracy(before: str, after: str) -> Change:
    figure = "category.accuracy"
    return change(compare(hits(figure, before), hits(figure, after)))


@pytest.mark.parametrize(
    ("lost", "gained", "verdict"),
    [
        *((1, 0, "same"), (5, 0, "same"), (6, 0, "worse"), (8, 1, "worse"), (7, 1, "same")),
        *((0, 5, "same"), (0, 6, "better"), (20, 20, "same"), (30, 12, "worse"), (24, 14, "same")),
    ],
)
def test_what_is_right_or_wrong_is_judged_as_mcnemar_does(
    lost: int, gained: int, verdict: str
) -> None:
    alike = "+" * 60 + "-" * 20
    found = accuracy("+" * lost + "-" * gained + alike, "-" * lost + "+" * gained + alike)
    # How likely at least so many heads are among so many tosses.
    moved, more = lost + gained, max(lost, gained)
    exact = sum(math.comb(moved, heads) for heads in range(more, moved + 1)) / 2**moved
    assert (found.lost, found.gained, found.verdict) == (lost, gained, verdict)
    if lost != gained:
        assert found.chance == pytest.approx(exact, abs=1e-4 if moved <= 12 else 0.005)
    assert (exact <= RISK) == (verdict != "same")


def test_a_run_is_no_worse_than_itself() -> None:
    run = hits("category.accuracy", "+-++ -+")
    compared = compare(run, run)
    assert compared.regressions == []
    assert change(compared).verdict == "same"
    assert (change(compared).difference, change(compared).chance) == (0.0, 1.0)


def test_a_rate_that_should_be_low_is_worse_when_it_rises() -> None:
    figure = "answers.wrong_answer_rate"
    calm, wrong = hits(figure, "-" * 20), hits(figure, "-" * 12 + "+" * 8)
    assert change(compare(calm, wrong), figure).verdict == "worse"
    assert change(compare(wrong, calm), figure).verdict == "better"
    assert compare(calm, wrong).regressions == [figure]


def test_figures_without_a_good_side_are_told_and_decide_nothing() -> None:
    for figure in ("answers.words", "category.sure.coverage", "category.sure.accuracy"):
        found = change(compare(hits(figure, "+" * 40), hits(figure, "-" * 40)), figure)
        assert (found.verdict, found.difference, found.chance) == ("told", -1.0, None)


def test_parts_of_facts_count_in_part() -> None:
    figure = "answers.fact_recall"
    before = report([{figure: [1.0]}] * 10)
    after = report([{figure: [0.5]}] * 8 + [{figure: [1.0]}] * 2)
    found = change(compare(before, after), figure)
    assert (found.before, found.after, found.lost) == (1.0, 0.6, 8)
    assert found.chance == pytest.approx(1 / 2**8, abs=1e-4)


def test_sentences_of_one_answer_are_one_piece_of_evidence() -> None:
    figure = "answers.unsupported_rate"
    before = report([{figure: [0.0] * 9}] * 10)
    after = report([{figure: [1.0] * 9}] * 2 + [{figure: [0.0] * 9}] * 8)
    found = change(compare(before, after), figure)
    # 18 sentences of 90, but two answers: it may have been chance.
    assert (found.after, found.verdict) == (0.2, "same")


def test_a_figure_over_other_queries_in_each_run_is_compared_all_the_same() -> None:
    """As precision is: only who was taken for angry counts."""
    figure = "anger.precision"
    found = change(compare(hits(figure, "++++++++      "), hits(figure, "++++++++------")), figure)
    assert (found.before, found.after, found.lost, found.gained) == (1.0, 0.5714, None, None)
    # Any false alarm less would be a smaller loss, and so would one on the other side.
    assert found.chance == pytest.approx(1 / 2**6, abs=1e-4)
    assert found.verdict == "worse"


def test_what_one_run_does_not_know_decides_nothing() -> None:
    found = change(
        compare(hits("anger.precision", "++"), hits("anger.precision", "  ")), "anger.precision"
    )
    assert (found.before, found.after, found.difference, found.verdict) == (1.0, None, None, "told")


def test_only_shared_queries_are_compared() -> None:
    right, wrong = {"category.accuracy": [1.0]}, {"category.accuracy": [0.0]}
    before = report([right, right, wrong], names=["a", "b", "old"])
    after = report([right, wrong, right, right], names=["a", "b", "new", "newer"])
    compared = compare(before, after)
    assert (compared.paired, compared.shared) == (True, 2)
    assert (compared.before_only, compared.after_only) == (1, 2)
    assert (change(compared).before, change(compared).after) == (1.0, 0.5)
    with pytest.raises(InvalidInput, match="shares no query"):
        compare(before, report([right], names=["c"]))


def test_the_same_comparison_comes_out_the_same() -> None:
    marks = "+" * 30 + "-" * 25, "-" * 28 + "+" * 27
    assert accuracy(*marks) == accuracy(*marks)


def test_runs_without_their_queries_are_compared_as_samples() -> None:
    def told(accuracy: float, n: int, **more: Any) -> Report:
        counts = {"category.accuracy": n}
        return Report(
            "a", {"n": n, "category": {"accuracy": accuracy, "n": n}, "counts": counts} | more
        )

    # Standard errors: of .9 and .85 at 100, .047; at 1,000, .015.
    few, many = (
        compare(told(0.9, 100), told(0.85, 100)),
        compare(told(0.9, 1_000), told(0.85, 1_000)),
    )
    assert (few.paired, change(few).verdict, change(many).verdict) == (False, "same", "worse")
    assert change(few).chance == pytest.approx(0.142, abs=0.002)
    assert change(many).chance == pytest.approx(0.0003, abs=0.0002)
    late = (
        told(0.9, 100, latency={"total": {"p95": 2.0}}),
        told(0.9, 100, latency={"total": {"p95": 9.0}}),
    )
    slower = change(compare(*late), "latency.total.p95")
    assert (slower.difference, slower.verdict) == (7.0, "told")
    bare = Report("a", {"n": 9, "category": {"accuracy": 1.0}})
    assert change(compare(bare, told(0.1, 9))).verdict == "told", "nobody knows how much it weighs"


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"{}", b'"x"', b"\xff", b'{"n": "many"}'),
        *(b'{"n": 1, "items": [{"key": "x"}]}', b'{"n": 1, "counts": [1]}'),
    ],
)
def test_what_is_no_report_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"run\.json is no report"):
        Report.read(file)


def test_a_report_is_read_as_it_was_printed(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    document = {"n": 2, "category": {"accuracy": 0.5, "n": 2, "confusion": {"A": {"B": 1}}}}
    file.write_text(json.dumps(document | {"compare": {"shared": 1}, "run": {"set": "x"}}))
    assert Report.read(file).figures == {"category.accuracy": 0.5}

"""Texts go through the graph in runs that waste little on padding."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.knowledge.onnx_embedding import BATCH, STRETCH, runs


@given(st.lists(st.integers(min_value=2, max_value=512), max_size=120))
def test_every_text_is_in_one_run_among_texts_of_its_length(lengths: list[int]) -> None:
    found = list(runs(lengths))
    assert sorted(at for run in found for at in run) == list(range(len(lengths)))
    for run in found:
        inside = [lengths[at] for at in run]
        assert 1 <= len(run) <= BATCH
        assert max(inside) <= STRETCH * min(inside)


def test_texts_of_one_length_fill_their_runs() -> None:
    assert [len(run) for run in runs([9] * (2 * BATCH + 1))] == [BATCH, BATCH, 1]

"""The engine's small parts that need no weights: drafts, kept prefixes, speed, tuning."""

from __future__ import annotations

import ctypes
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import WeightsError
from appliance.llm.engine import tuning
from appliance.llm.engine.constraints import Choices, ConstraintError
from appliance.llm.engine.lookup import DRAFT, FIRST_PAUSE, NGRAM, Lookup
from appliance.llm.engine.prefixes import PrefixStore, as_tokens, shared_prefix
from appliance.llm.engine.speed import Speed
from appliance.llm.engine.tuning import Key, Measured, Tuning, candidates, decide

TOKENS = st.lists(st.integers(0, 4), max_size=40)


def saved(size: int) -> ctypes.Array[ctypes.c_uint8]:
    return (ctypes.c_uint8 * size)()


@given(TOKENS, TOKENS)
def test_a_shared_prefix_is_the_longest_there_is(left: list[int], right: list[int]) -> None:
    shared = shared_prefix(as_tokens(left), as_tokens(right))
    assert left[:shared] == right[:shared]
    assert left[: shared + 1] != right[: shared + 1] or shared == min(len(left), len(right))


@given(st.lists(st.tuples(TOKENS, st.integers(1, 40)), max_size=20), TOKENS)
def test_kept_prefixes_stay_within_their_room_and_never_lie(
    puts: list[tuple[list[int], int]], wanted: list[int]
) -> None:
    store = PrefixStore(limit=60)
    for tokens, size in puts:
        store.put(as_tokens(tokens), saved(size))
        assert store.size <= 60
    shared, kept = store.best(as_tokens(wanted))
    if shared:
        assert kept is not None
        assert kept.tokens[:shared].tolist() == wanted[:shared]
    store.clear()
    assert (len(store), store.size) == (0, 0)


def test_the_least_recently_useful_prefix_goes_first() -> None:
    store = PrefixStore(limit=2)
    store.put(as_tokens([1, 1]), saved(1))
    store.put(as_tokens([2, 2]), saved(1))
    store.best(as_tokens([1, 1, 1]))
    store.put(as_tokens([3, 3]), saved(1))
    assert store.covers(as_tokens([1, 1]))
    assert not store.covers(as_tokens([2, 2]))


def test_a_longer_text_replaces_its_beginning_and_a_giant_is_not_kept() -> None:
    store = PrefixStore(limit=10)
    store.put(as_tokens([1, 2]), saved(3))
    store.put(as_tokens([1, 2, 3]), saved(4))
    assert (len(store), store.size) == (1, 4)
    store.put(as_tokens([9]), saved(11))
    assert len(store) == 1


@given(TOKENS, st.integers(0, 12))
def test_a_draft_is_what_followed_the_same_tokens(tokens: list[int], limit: int) -> None:
    draft = Lookup(tokens).draft(limit)
    assert len(draft) <= min(limit, DRAFT)
    if draft:
        gram = tokens[-NGRAM:]
        followed = [
            tokens[at + NGRAM : at + NGRAM + len(draft)]
            for at in range(len(tokens) - NGRAM)
            if tokens[at : at + NGRAM] == gram
        ]
        assert draft in followed


def test_drafts_that_fail_pause_longer_each_time() -> None:
    lookup = Lookup([1, 2, 3, 4, 5, 1, 2, 3])
    assert lookup.draft(2) == [4, 5]
    pauses = []
    for _ in range(3):
        lookup.learn(0)
        waited = 0
        while not lookup.draft(1):
            lookup.extend([1 + waited % 3])
            waited += 1
        pauses.append(waited)
    assert pauses[0] >= FIRST_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[2] > pauses[0]
    lookup.learn(DRAFT)
    assert lookup.draft(1)


def test_speed_follows_the_machine_and_knows_nothing_at_first() -> None:
    speed = Speed()
    assert speed.seconds(to_read=100, to_write=10) == 0
    speed.read(100, 1.0)
    speed.wrote(10, 1.0)
    assert speed.seconds(to_read=100, to_write=10) == pytest.approx(2)
    for _ in range(60):
        speed.read(100, 2.0)
    assert speed.seconds(to_read=100, to_write=0) == pytest.approx(2, rel=0.01)


KEY = Key("sha", "cpu", 8, "1")


@pytest.mark.parametrize(
    ("cores", "tries"), [(1, [1]), (2, [1, 2]), (6, [1, 3, 6]), (8, [1, 2, 4, 8])]
)
def test_threads_worth_a_try(cores: int, tries: list[int]) -> None:
    assert candidates(cores) == tries


def test_more_threads_must_pay() -> None:
    """Two gain a third at reading, nothing at single tokens; eight gain nothing more."""
    measured = [
        Measured(1, 9.0, 30.0, 60.0),
        Measured(2, 8.5, 20.0, 40.0),
        Measured(8, 8.4, 21.0, 39.0),
    ]
    chosen = decide(measured, KEY)
    assert (chosen.single, chosen.batch, chosen.drafts) == (1, 2, True)
    dear = decide([Measured(1, 1.0, 7.0, 60.0)], KEY)
    assert not dear.drafts


def test_tuning_is_remembered_for_the_same_file_on_the_same_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def measure(path: Path, threads: int) -> Measured:
        measured.append(threads)
        return Measured(threads, 1.0 / threads, 2.0, 1.0 / threads)

    monkeypatch.setattr(tuning, "_measure", measure)
    record = tmp_path / "weights" / "x.tuning.json"

    def tune(sha256: str) -> Tuning:
        return tuning.tune(tmp_path / "x.gguf", sha256, record, cores=2, report=lambda _: None)

    first = tune("a")
    assert (first.single, first.batch, measured) == (2, 2, [1, 2])
    assert tune("a") == first
    assert measured == [1, 2]
    tune("b")
    assert measured == [1, 2, 1, 2]
    record.write_bytes(b"{")
    assert tune("b").key is not None
    assert msgspec.json.decode(record.read_bytes(), type=Tuning).key.sha256 == "b"  # type: ignore[union-attr]


def test_weights_that_cannot_be_measured_are_served_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(path: Path, threads: int) -> Measured:
        raise WeightsError("no room")

    monkeypatch.setattr(tuning, "_measure", measure)
    record = tmp_path / "x.json"
    chosen = tuning.tune(tmp_path / "x", "a", record, cores=2, report=lambda _: None)
    assert (chosen.single, chosen.batch, chosen.drafts, record.exists()) == (2, 2, False, False)


def test_choices_are_scored_where_they_part_and_nowhere_else() -> None:
    import numpy as np

    choices = Choices(("ab", "ac", "a", "d"), ((1, 2), (1, 3), (1,), (4,)), end=0)
    asked: list[tuple[int, ...]] = []

    def logits_after(tokens: tuple[int, ...]) -> np.ndarray:
        asked.append(tokens)
        return np.log(np.array([0.2, 0.6, 0.3, 0.1, 0.2], dtype=np.float32))

    scores = choices.scores(logits_after)
    assert asked == [(), (1,)]
    assert np.exp(scores["d"]) == pytest.approx(0.25)
    assert np.exp(scores["ab"]) == pytest.approx(0.75 * 0.3 / 0.6)
    assert sum(np.exp(list(scores.values()))) == pytest.approx(1)
    assert choices.pick(scores, temperature=0, seed=None) == ("ab", 2)
    drawn = {choices.pick(scores, temperature=1, seed=seed)[0] for seed in range(40)}
    assert len(drawn) > 2


@pytest.mark.parametrize(
    "tokens", [(), tuple((n,) for n in range(200)), ((1,), (1,)), ((),), ((1,) * 65,)], ids=len
)
def test_impossible_choices_are_refused(tokens: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ConstraintError):
        Choices(tuple(map(str, range(len(tokens)))), tokens, end=0)

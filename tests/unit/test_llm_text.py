"""Whole characters, and nothing of a stop string."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.llm.engine.text import Assembler


def feed(pieces: list[bytes], stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    assembler = Assembler(stop)
    out = []
    for piece in pieces:
        out.append(assembler.feed(piece))
        if assembler.stopped:
            return out, True
    return [*out, assembler.finish()], False


def test_a_character_is_never_cut() -> None:
    out, _ = feed([bytes([byte]) for byte in "né😀".encode()])
    assert [text for text in out if text] == ["n", "é", "😀"]


def test_half_a_character_at_the_end_is_dropped() -> None:
    assert feed([b"ab", "😀".encode()[:3]]) == (["ab", "", ""], False)


def test_bytes_that_are_no_text_become_the_replacement_character() -> None:
    assert feed([b"a\xffb"]) == (["a\ufffdb", ""], False)


@pytest.mark.parametrize(
    ("pieces", "stop", "text", "stopped"),
    [
        (["one END two"], ("END",), "one ", True),
        (["one E", "N", "D two"], ("END",), "one ", True),
        (["one E", "N", "T"], ("END",), "one ENT", False),
        (["one EN"], ("END",), "one EN", False),
        (["aab", "aac"], ("aac",), "aab", True),
        (["aaa", "ac"], ("aac",), "aa", True),
        (["x\n", "\ny"], ("\n\n", "y"), "x", True),
        (["END"], ("END",), "", True),
        (["a b c"], ("c", "b"), "a ", True),
        (["nothing"], (), "nothing", False),
    ],
)
def test_stop_strings(pieces: list[str], stop: tuple[str, ...], text: str, stopped: bool) -> None:
    out, was_stopped = feed([piece.encode() for piece in pieces], stop)
    assert ("".join(out), was_stopped) == (text, stopped)


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    assembler = Assembler(("END",))
    assert [assembler.feed(piece) for piece in (b"one E", b"N", b"T")] == ["one ", "", "ENT"]


@given(
    text=st.text(alphabet="abé😀", max_size=30),
    stop=st.lists(st.text(alphabet="abé😀", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 120), max_size=12),
)
def test_cutting_changes_nothing(text: str, stop: list[str], cuts: list[int]) -> None:
    """Text up to the stop string that is complete first, however the bytes were cut."""
    data = text.encode()
    edges = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    whole, stopped = feed([bytes([byte]) for byte in data], tuple(stop))
    cut, cut_stopped = feed(pieces, tuple(stop))
    assert cut_stopped == stopped
    if not stop or not stopped:
        assert "".join(cut) == "".join(whole) == text
    else:
        assert not any(end in "".join(cut) for end in stop)
        assert text.startswith("".join(cut))

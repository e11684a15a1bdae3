"""What people said of messages, sorted into what teaches and what judges."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.domain.examples import Example, held_out, teaching, text_key
from appliance.domain.policy import HELD_OUT_EVERY

TEXTS = [f"My order number {n} has not arrived" for n in range(400)]


@pytest.mark.parametrize(
    "same", ["where IS my order", "  Where is my order?? ", "Where\nis, my order!"]
)
def test_a_text_is_known_again_however_it_is_typed(same: str) -> None:
    assert text_key(same) == text_key("Where is my order?")


@pytest.mark.parametrize(
    ("one", "other"), [("Where is my order?", "Where is your order?"), ("😡", "😀"), ("?", "!")]
)
def test_other_texts_have_other_keys(one: str, other: str) -> None:
    assert text_key(one) != text_key(other)


def test_about_a_fifth_judges_and_always_the_same() -> None:
    judges = [text for text in TEXTS if held_out(text_key(text))]
    assert len(TEXTS) / HELD_OUT_EVERY == pytest.approx(len(judges), rel=0.3)
    desk = teaching([Example(text, "Billing") for text in TEXTS], ())
    assert [example.text for example in desk.judges] == judges
    assert {e.text for e in desk.judged} == set(TEXTS) - set(judges)
    assert [e.text for e in desk.taught] == TEXTS


def test_the_latest_word_on_a_text_counts_label_by_label() -> None:
    desk = teaching(
        [
            Example("It broke", "Billing", "Neutral"),
            Example("Hello", "General"),
            Example("it broke!", "Technical"),
        ],
        (),
    )
    assert desk.taught == (
        Example("Hello", "General"),
        Example("it broke!", "Technical", "Neutral"),
    )


@settings(deadline=None)  # the machine may be busy
@given(golden=st.sets(st.sampled_from(TEXTS)))
def test_golden_texts_never_train_and_still_judge(golden: set[str]) -> None:
    keys = {text_key(text) for text in golden}
    desk = teaching([Example(text, "Billing") for text in TEXTS], keys)
    assert not {e.text for e in desk.taught} & golden
    assert not {e.text for e in desk.judged} & golden
    assert not {e.text for e in desk.judged} & {e.text for e in desk.judges}
    assert desk.withheld == len(golden)
    assert desk.judges == teaching([Example(text, "Billing") for text in TEXTS], ()).judges

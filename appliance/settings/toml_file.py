"""The file in which an administrator writes settings down."""

from __future__ import annotations

from typing import Any

from pydantic_settings import TomlConfigSettingsSource

from appliance.errors import SettingsError


class TomlFile(TomlConfigSettingsSource):
    """The TOML file, in which the settings of the remote backend may stand in a table."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        values = super()._read_file(file_path)
        table = values.get("remote")
        if isinstance(table, dict):
            del values["remote"]
            named = {f"remote_{name}": value for name, value in table.items()}
            if twice := sorted(named.keys() & values.keys()):
                raise SettingsError(f"{file_path} sets {twice[0]} twice.")
            values |= named
        return values

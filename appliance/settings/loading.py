"""Reading the settings, and saying in a line what is wrong with them."""

from __future__ import annotations

import tomllib
from typing import Any

from pydantic import ValidationError

from appliance.errors import SettingsError
from appliance.settings.environment import PREFIX, config_file, own_variables
from appliance.settings.fields import Settings


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; ``overrides`` win over file and environment.

    :raises SettingsError: with the name of the first field that is wrong.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        said = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{where}: {said}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"{config_file()} is not valid TOML: {error}") from error


def unknown_variables() -> list[str]:
    """Names in the environment that look like settings and are none: logged at start, since a typo
    must show."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    known |= {"APPLIANCE_CONFIG", "APPLIANCE_TORCH_INDEX"}
    return sorted(name for name in own_variables() if name not in known)

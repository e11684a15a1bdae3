"""pip, as bundles use it: a program of its own, so that nothing of it runs in the product."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from packaging.utils import canonicalize_name

from appliance.errors import BundleError


def pip(
    *words: str | Path, python: str | Path = sys.executable, env: dict[str, str] | None = None
) -> str:
    """Run it and return what it printed.

    :param env: the whole environment, or None for this process's own.
    :raises BundleError: it failed; the error has its last lines.
    """
    done = subprocess.run(  # noqa: S603 - fixed words and paths, no shell
        [python, "-m", "pip", "--disable-pip-version-check", "--no-input", *words],
        env=env,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise BundleError(
            f"pip {words[0]} failed: {' / '.join(lines[-3:])}",
            hint="Building a bundle needs the package indexes that pip is configured for.",
        )
    return done.stdout


def resolved(wanted: Iterable[str], pins: str, wheels: Path) -> set[str]:
    """Names of all packages that pip takes from the folder for these requirements, reaching
    nothing.

    :param pins: lines ``name==version`` that nothing may differ from.
    :raises BundleError: something that is needed is not in the folder.
    """
    with tempfile.TemporaryDirectory(prefix="appliance-resolve-") as work:
        constraints, report = Path(work, "pins.txt"), Path(work, "report.json")
        constraints.write_text(pins)
        told: list[str | Path] = ["--constraint", constraints, "--report", report]
        pip("install", "--isolated", *DRY_RUN, "--find-links", wheels, *told, *wanted)
        found = json.loads(report.read_text())["install"]
    return {canonicalize_name(each["metadata"]["name"]) for each in found}


DRY_RUN = ("--dry-run", "--quiet", "--ignore-installed", "--no-index", "--only-binary", ":all:")

"""pip, as bundles use it: a program of its own, so that nothing of it runs in the product."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

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


def check_installable(lock: str, wheels: Path, *, resolve: bool) -> None:
    """Have pip work out an installation from the folder, reaching nothing.

    :param resolve: whether what the packages need has to be in the lock, too.
    :raises BundleError: something is missing or has another hash.
    """
    words = ["--dry-run", "--quiet", "--ignore-installed", "--no-index", "--find-links", wheels]
    hashed = ["--require-hashes", "--only-binary", ":all:"]
    with tempfile.NamedTemporaryFile("w", prefix="appliance-lock-", suffix=".txt") as file:
        file.write(lock)
        file.flush()
        more = [] if resolve else ["--no-deps"]
        pip("install", "--isolated", *words, *hashed, *more, "--requirement", file.name)

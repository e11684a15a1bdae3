"""Where everything of an installation lies, and which release is in charge.

Every path comes from the root, so that a staging folder (``install.sh --root``) is laid out as
``/`` is.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import Conflict, InvalidInput, NotFound
from appliance.settings import ROOT

VERSION_FORM = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,99}")
"""What may name a folder of releases/: nothing that leads out of it, nothing hidden."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one installation."""

    root: Path

    @classmethod
    def here(cls) -> Layout:
        """The installation that this very code belongs to.

        :raises Conflict: it runs from a checkout.
        """
        if ROOT is None:
            raise Conflict(
                "This is a checkout, not an installed release.",
                hint="Install one with './install.sh install', or name its root with --root.",
            )
        return cls(ROOT)

    @property
    def product(self) -> Path:
        """Code, and nothing that changes while it runs."""
        return self.root / "opt/appliance"

    @property
    def releases(self) -> Path:
        """One folder for each release, named by its version."""
        return self.product / "releases"

    @property
    def current(self) -> Path:
        """The link to the release in charge."""
        return self.product / "current"

    @property
    def configuration(self) -> Path:
        """What the administrator decides."""
        return self.root / "etc/appliance"

    @property
    def units(self) -> Path:
        """Copies of the release's units; local changes lie in ``*.service.d/`` beside them."""
        return self.root / "etc/systemd/system"

    @property
    def state(self) -> Path:
        """Everything that is remembered."""
        return self.root / "var/lib/appliance"

    @property
    def notes(self) -> Path:
        """What upgrades remember: journal, log, backups. Beside the state and not in it: root acts
        upon what is written here, so that nobody else may write it."""
        return self.root / "var/lib/appliance-release"

    def make_notes(self) -> None:
        """Make that folder, in which services look for ``probation`` whatever the umask says."""
        self.notes.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.notes.chmod(0o755)

    @property
    def journal(self) -> Path:
        """What is under way, or was last."""
        return self.notes / "journal.json"

    @property
    def log(self) -> Path:
        """A line for each phase of each upgrade."""
        return self.notes / "release.log"

    @property
    def lock(self) -> Path:
        """Held by whoever changes which release is in charge."""
        return self.notes / "lock"

    @property
    def probation(self) -> Path:
        """There while whatever is written may still be undone: customers are kept out."""
        return self.notes / "probation"

    @property
    def backups(self) -> Path:
        """One folder for each upgrade."""
        return self.notes / "backups"

    @property
    def run(self) -> Path:
        """Process id and log of what runs without systemd."""
        return self.notes / "run"

    def release(self, version: str) -> Path:
        """The folder of a release.

        :raises InvalidInput: that is no version.
        """
        if not VERSION_FORM.fullmatch(version):
            raise InvalidInput(f"{version!r} is no version.", hint="Name one, such as 1.2.0.")
        return self.releases / version

    def program(self, version: str) -> Path:
        """The ``appliance`` command of a release."""
        return self.release(version) / ".venv/bin/appliance"

    def present(self) -> list[str]:
        """Versions whose release is whole enough to run."""
        if not self.releases.is_dir():
            return []
        named = (f.name for f in self.releases.iterdir() if VERSION_FORM.fullmatch(f.name))
        return sorted(name for name in named if self.program(name).exists())

    def require(self, version: str) -> None:
        """:raises NotFound: there is no such release here."""
        if not self.program(version).exists():
            there = ", ".join(self.present()) or "none"
            raise NotFound(
                f"There is no release {version} below {self.releases}.",
                hint=f"Releases that are here: {there}.",
            )

    @property
    def version(self) -> str | None:
        """The version in charge; None where there is none yet."""
        try:
            return self.current.readlink().name
        except FileNotFoundError:
            return None

    def switch(self, version: str) -> None:
        """Put a release in charge, for good: whoever looks sees the one or the other.

        :raises NotFound: there is no such release.
        """
        self.require(version)
        if self.version == version:
            return
        fresh = self.product / ".current-new"
        # Left by a switch that was killed between the two steps.
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(Path("releases") / version)
        fresh.rename(self.current)
        sync_folder(self.product)


def sync_folder(folder: Path) -> None:
    """Make what was renamed in a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace a file as a whole: after a crash it holds the old content or the new."""
    fresh = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        # Whatever the umask says: units and the journal are read by others than their writer.
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    fresh.rename(path)
    sync_folder(path.parent)

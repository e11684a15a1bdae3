"""The product's own files: those of a commit, or of the release this runs from."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from appliance.errors import BundleError
from appliance.operations.bundle.archive import Content
from appliance.operations.bundle.layout import MANIFEST, Manifest

SHIPPED = (
    ".constraints",
    "README.md",
    "appliance",
    "docs",
    "install.sh",
    "kb",
    "migrations",
    "models",
    "pyproject.toml",
    "systemd",
)
"""What a release consists of. Tests and CI stay with the developers."""

_MADE_HERE = ("__pycache__", "weights")
"""Folders in a release that are not part of what was released."""

VERSION_FILE = "appliance/__init__.py"


@dataclass(frozen=True, slots=True)
class Tree:
    """Files by their path, and where they come from; ``created`` is the commit's time."""

    commit: str
    created: int
    dirty: bool
    files: dict[str, Content]

    def text(self, path: str) -> str:
        """A file that must be there.

        :raises BundleError: it is not.
        """
        if path not in self.files:
            raise BundleError(f"The product's tree lacks {path}.", hint="Take a whole checkout.")
        return self.files[path].read().decode()


def read(home: Path, *, allow_dirty: bool = False) -> Tree:
    """The tree that lies in ``home``.

    :raises BundleError: the checkout differs from its commit and that was not allowed.
    """
    if (home / ".git").exists():
        return _of_checkout(home, allow_dirty=allow_dirty)
    try:
        known = msgspec.json.decode((home / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise BundleError(
            f"{home} is neither a git checkout nor a release made from a bundle.",
            hint="Build from a checkout.",
        ) from error
    created = int(datetime.fromisoformat(known.created).timestamp())
    return Tree(known.commit, created, known.dirty, _on_disk(home, _walk(home)))


def iso(seconds: int) -> str:
    """A time as ``BUNDLE.json`` writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _of_checkout(home: Path, *, allow_dirty: bool) -> Tree:
    commit = _git(home, "rev-parse", "HEAD").decode().strip()
    created = int(_git(home, "log", "-1", "--format=%ct"))
    changed = _git(home, "status", "--porcelain").decode().splitlines()
    if not changed:
        return Tree(commit, created, False, _of_commit(home))
    if not allow_dirty:
        raise BundleError(
            f"The checkout differs from its commit in {len(changed)} files: {changed[0].strip()}.",
            hint="Commit first, or say --allow-dirty, which the bundle will tell.",
        )
    names = _git(
        home, "ls-files", "-z", "--cached", "--others", "--exclude-standard", *_shipped(home)
    )
    paths = sorted({name for name in names.decode().split("\0") if name and (home / name).exists()})
    return Tree(commit, created, True, _on_disk(home, paths))


def _shipped(home: Path) -> list[str]:
    """git refuses names that it does not know."""
    return ["--", *(name for name in SHIPPED if (home / name).exists())]


def _of_commit(home: Path) -> dict[str, Content]:
    files = {}
    packed = _git(home, "archive", "--format=tar", "HEAD", *_shipped(home))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for info in tar:
            if info.isdir():
                continue
            file = tar.extractfile(info) if info.isreg() else None
            if file is None:
                raise BundleError(f"{info.name} is a link; a bundle holds files only.", hint="")
            files[info.name] = Content(file.read(), bool(info.mode & 0o100))
    return files


def _walk(home: Path) -> list[str]:
    found = []
    for name in SHIPPED:
        if (home / name).is_file():
            found.append(name)
        for folder, folders, names in os.walk(home / name):
            folders[:] = [each for each in folders if each not in _MADE_HERE]
            found += [(Path(folder) / each).relative_to(home).as_posix() for each in names]
    return sorted(found)


def _on_disk(home: Path, paths: list[str]) -> dict[str, Content]:
    files = {}
    for path in paths:
        if (home / path).is_symlink():
            raise BundleError(f"{path} is a link; a bundle holds files only.", hint="")
        files[path] = Content((home / path).read_bytes(), os.access(home / path, os.X_OK))
    return files


def _git(home: Path, *words: str) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - fixed words, no shell
            ["git", "-C", home, *words],  # noqa: S607 - the developer's own
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError as error:
        raise BundleError("The program git is not here.", hint="Install git.") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise BundleError(f"git {words[0]} failed: {said}.", hint="")
    return done.stdout

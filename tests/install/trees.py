"""Trees of files: installed releases made up of nothing, and a folder's content as one number."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Container
from pathlib import Path

from appliance.operations.release.layout import Layout
from tests.appliance_process import ROOT


def tree_hash(folder: Path, without: Container[str] = ()) -> str:
    """SHA-256 over every name, kind, mode, owner, link target and content below a folder.

    :param without: paths below the folder that are left out, with all that lies in them.
    """
    found = hashlib.sha256()

    def add(path: Path) -> None:
        name = path.relative_to(folder).as_posix()
        if name in without:
            return
        status = path.lstat()
        found.update(f"{name}\0{status.st_mode:o} {status.st_uid}:{status.st_gid}\0".encode())
        if path.is_symlink():
            found.update(str(path.readlink()).encode())
        elif path.is_dir():
            for child in sorted(path.iterdir()):
                add(child)
        elif path.is_file():
            found.update(hashlib.sha256(path.read_bytes()).digest())

    add(folder)
    return found.hexdigest()


def staged(root: Path, *versions: str) -> Layout:
    """A root with releases that hold units and a program's name."""
    layout = Layout(root)
    layout.notes.mkdir(parents=True)
    for version in versions:
        program = layout.program(version)
        program.parent.mkdir(parents=True)
        program.touch()
        shutil.copytree(ROOT / "systemd", layout.release(version) / "systemd")
    return layout

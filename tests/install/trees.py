"""A folder's content as one number."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from pathlib import Path


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

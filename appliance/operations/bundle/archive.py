"""The tar itself: one way to write it, and a reader that takes nothing but what was written so.

A tar has many spellings that programs read differently (links, long-name records, PAX headers, a
second archive behind the first). Here each byte of the file follows from the names, sizes and
contents in it; the reader compares, so nothing can hide beside what is hashed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from appliance.errors import BundleError
from appliance.operations.bundle.layout import check_path

_BLOCK = 1 << 20
_FILE, _PROGRAM = 0o644, 0o755


@dataclass(frozen=True, slots=True)
class Content:
    """A file on its way into a bundle: a path to read or the bytes themselves."""

    source: Path | bytes
    program: bool = False

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    def digest(self) -> str:
        """SHA-256, in hex."""
        if isinstance(self.source, bytes):
            return hashlib.sha256(self.source).hexdigest()
        with self.source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def read(self) -> bytes:
        """All of it."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


def write(target: Path, top: str, files: Mapping[str, Content], mtime: int) -> None:
    """Write the archive in one step: sorted names, one time, nobody's files.

    :raises BundleError: a path that a bundle may not hold.
    :raises OSError: no room, no permission.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as out:
            for path, content in sorted(files.items()):
                mode = _PROGRAM if content.program else _FILE
                out.write(_header(f"{top}/{check_path(path)}", content.size, mode, mtime))
                if isinstance(content.source, bytes):
                    out.write(content.source)
                else:
                    with content.source.open("rb") as file:
                        shutil.copyfileobj(file, out, _BLOCK)
                out.write(bytes(-content.size % tarfile.BLOCKSIZE))
            out.write(_ending(out.tell()))
            out.flush()
            os.fsync(out.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: its path below the top folder, and where its bytes lie."""

    path: str
    offset: int
    size: int


class Archive:
    """An open archive whose every byte beside the files' own was checked; ``members`` by path.

    :raises BundleError: it is no such archive; the error names the file in it that is the matter.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.top = ""
        self.members: dict[str, Member] = {}
        try:
            self._read()
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
            after = list(self.members)[-1] if self.members else "its beginning"
            raise BundleError(
                f"{name} is damaged or cut off after {after}, or no bundle: {error}."
            ) from error

    def read(self, path: str) -> bytes:
        """A file's bytes."""
        return b"".join(self.blocks(path))

    def digest(self, path: str) -> str:
        """A file's SHA-256, in hex."""
        hashed = hashlib.sha256()
        for block in self.blocks(path):
            hashed.update(block)
        return hashed.hexdigest()

    def blocks(self, path: str) -> Iterator[bytes]:
        """A file's bytes in pieces."""
        member = self.members[path]
        self._file.seek(member.offset)
        left = member.size
        while left:
            block = self._file.read(min(left, _BLOCK))
            if not block:
                raise BundleError(f"{self._name} is cut off in {path}.")
            left -= len(block)
            yield block

    def _read(self) -> None:
        end, mtime = 0, None
        with tarfile.open(fileobj=self._file, mode="r:") as tar:
            for info in tar:
                if not info.isreg():
                    raise BundleError(f"{self._name} holds something that is no file: {info.name}.")
                top, _, path = check_path(info.name).partition("/")
                self.top = self.top or top
                mtime = info.mtime if mtime is None else mtime
                if top != self.top or not path:
                    raise BundleError(f"{self._name} holds a file beside its folder: {info.name}.")
                if path in self.members:
                    raise BundleError(f"{self._name} holds {path} twice.")
                mode = _PROGRAM if info.mode == _PROGRAM else _FILE
                wanted = _header(info.name, info.size, mode, int(mtime))
                if info.offset != end or self._at(end, len(wanted)) != wanted:
                    raise BundleError(f"{self._name} was changed around {path}.")
                end = info.offset_data + info.size
                padding = -end % tarfile.BLOCKSIZE
                if self._at(end, padding) != bytes(padding):
                    raise BundleError(f"{self._name} was changed or cut off behind {path}.")
                end += padding
                self.members[path] = Member(path, info.offset_data, info.size)
        if self._at(end, 2 * tarfile.RECORDSIZE) != _ending(end):
            raise BundleError(f"{self._name} does not end where a bundle ends.")

    def _at(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)


def _header(name: str, size: int, mode: int, mtime: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, mode, mtime
    return info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def _ending(length: int) -> bytes:
    """Two empty blocks, then up to a whole record."""
    end = length + 2 * tarfile.BLOCKSIZE
    return bytes(2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE)

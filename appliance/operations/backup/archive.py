"""The file: a plain tar that ``tar`` and ``sha256sum -c`` can take apart, in a fixed order.

First ``manifest.json``, then ``SHA256SUMS`` over everything else, then the members as the manifest
lists them. Reading takes nothing on trust: each header has to be the one expected at that place, of
a plain file of the size the manifest says. So there are no paths, links, devices, sparse files or
extended headers to fall for.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Final

from appliance.errors import BackupRefused
from appliance.operations.backup.manifest import (
    MANIFEST_MAX,
    Manifest,
    Member,
    decode,
    encode,
)

MANIFEST: Final = "manifest.json"
SUMS: Final = "SHA256SUMS"
BLOCK: Final = tarfile.BLOCKSIZE
CHUNK: Final = 2**20
_END: Final = bytes(2 * BLOCK)
_DAMAGED: Final = "The backup is damaged: {}."


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(target: Path, manifest: Manifest, sources: Mapping[str, Path]) -> None:
    """Write a new file, readable for this user only, down to the disk.

    :param sources: where each member lies.
    :raises OSError: it cannot be written.
    """
    described = encode(manifest)
    stamp = int(manifest.created.timestamp())
    with target.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        for name, text in ((MANIFEST, described), (SUMS, _sums(described, manifest))):
            _add(file, name, len(text), stamp, [text])
        for member in manifest.members:
            with sources[member.name].open("rb") as source:
                blocks = iter(partial(source.read, CHUNK), b"")
                _add(file, member.name, member.size, stamp, blocks)
        file.write(_END)
        file.flush()
        os.fsync(file.fileno())


class Archive:
    """A backup file that was opened; its manifest is read and judged, its members not yet."""

    def __init__(self, file: IO[bytes], manifest: Manifest) -> None:
        self._file = file
        self.manifest = manifest

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Archive]:
        """Open a backup that may come from anybody.

        :raises BackupRefused: it cannot be read, or is none.
        """
        try:
            opened = path.open("rb")
        except OSError as error:
            raise BackupRefused(f"{path} cannot be read: {error.strerror}.") from error
        # What the caller does with it fails with the caller's own errors.
        with opened as file:
            described = _text(file, MANIFEST)
            sums = _text(file, SUMS)
            manifest = decode(described)
            if sums != _sums(described, manifest):
                raise BackupRefused(_DAMAGED.format("its manifest is not what was written"))
            yield cls(file, manifest)

    def unpack(self, folder: Path) -> dict[str, Path]:
        """Write every member to a file of ``folder``, by names of our own, and compare its hash;
        where each is. To be called once.

        :raises BackupRefused: something is not what the manifest says.
        :raises OSError: it cannot be written.
        """
        found = {}
        for number, member in enumerate(self.manifest.members):
            target = folder / f"{number:04}.member"
            self._member(member, target)
            found[member.name] = target
        _end(self._file)
        return found

    def _member(self, member: Member, target: Path) -> None:
        if _header(self._file, member.name) != member.size:
            raise BackupRefused(_DAMAGED.format(f"{member.name} has another size"))
        hashed = hashlib.sha256()
        with target.open("xb") as out:
            os.fchmod(out.fileno(), 0o600)
            left = member.size
            while left:
                block = _read(self._file, min(CHUNK, left))
                if not block:
                    raise BackupRefused(_DAMAGED.format("it ends too early"))
                hashed.update(block)
                out.write(block)
                left -= len(block)
            out.flush()
            os.fsync(out.fileno())
        _pad(self._file, member.size)
        if hashed.hexdigest() != member.sha256:
            raise BackupRefused(_DAMAGED.format(f"{member.name} is not what was written"))


def _read(file: IO[bytes], size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise BackupRefused(f"The backup cannot be read: {error.strerror}.") from error


def _sums(described: bytes, manifest: Manifest) -> bytes:
    lines = [(hashlib.sha256(described).hexdigest(), MANIFEST)]
    lines += [(member.sha256, member.name) for member in manifest.members]
    return "".join(f"{sha256}  {name}\n" for sha256, name in lines).encode()


def _add(file: IO[bytes], name: str, size: int, stamp: int, blocks: Iterable[bytes]) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, stamp, 0o600
    # GNU's format needs no second header for sizes above 8 GiB.
    header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
    assert len(header) == BLOCK, "a name of ours fits into one header"
    file.write(header)
    written = 0
    for block in blocks:
        written += file.write(block)
    assert written == size, f"{name} changed while it was written"
    file.write(bytes(-size % BLOCK))


def _header(file: IO[bytes], expected: str) -> int:
    """The size of the file whose header comes next and has to have this name."""
    try:
        info = tarfile.TarInfo.frombuf(_read(file, BLOCK), "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise BackupRefused(_DAMAGED.format(f"{expected} is missing")) from error
    if info.name != expected or info.type != tarfile.REGTYPE or info.size < 0:
        raise BackupRefused(_DAMAGED.format(f"something else is where {expected} belongs"))
    return info.size


def _text(file: IO[bytes], name: str) -> bytes:
    size = _header(file, name)
    if size > MANIFEST_MAX:
        raise BackupRefused(_DAMAGED.format(f"{name} is too large"))
    text = _read(file, size)
    if len(text) < size:
        raise BackupRefused(_DAMAGED.format("it ends too early"))
    _pad(file, size)
    return text


def _pad(file: IO[bytes], size: int) -> None:
    padding = -size % BLOCK
    if _read(file, padding) != bytes(padding):
        raise BackupRefused(_DAMAGED.format("it ends too early"))


def _end(file: IO[bytes]) -> None:
    if _read(file, len(_END) + 1) != _END:
        raise BackupRefused(_DAMAGED.format("its end is not where it belongs"))

"""The weights folder: what lies there, that it is what it was, and which model is the one to serve.

Every file is known by its SHA-256, written down when it came in and compared whenever it is used.
Files appear and change names in one step only, so that a crash leaves the old state or the new one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path

import msgspec

from appliance.errors import WeightsError
from appliance.llm.catalog import EMBEDDED, Catalog, Entry
from appliance.settings import Settings

_GGUF_MAGIC = b"GGUF"
_GGUF_VERSIONS = (2, 3)
_BLOCK = 1 << 20
_ROOM_TO_SPARE = 64 << 20
"""Bytes that must stay free after a copy: the database lives on the same disk."""
_ABANDONED = 3600.0
"""Seconds without a write after which a partial copy belongs to a process that was killed."""


class Weights(msgspec.Struct, frozen=True):
    """A weights file the appliance vouches for: its name, hash and size in bytes."""

    file: str
    sha256: str
    size: int


class _Active(msgspec.Struct, frozen=True):
    model: str


def folder(settings: Settings) -> Path:
    """Where weights lie; not created here."""
    return settings.data_dir / "weights"


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def place(settings: Settings, entry: Entry) -> Path:
    """Copy packaged weights into the weights folder, unless they are there; return where.

    :raises WeightsError: the package is missing or does not hold what the catalog's hash says.
    :raises OSError: the folder cannot be written, or the disk is full.
    """
    source = entry.packaged_file()
    target = folder(settings) / entry.file
    if target.is_file() and digest(target) == entry.sha256:
        return target
    if source is None:
        raise WeightsError(
            f"The package {entry.package} with the weights of {entry.name} is not installed.",
            hint="Install the appliance again: its package carries the weights.",
        )
    _copy(source, target, expected=entry.sha256)
    return target


def add(settings: Settings, file: Path, name: str) -> Weights:
    """Take a user's GGUF file into the weights folder as the weights of the catalog's ``name``.

    Only the first bytes are read here; what is inside is parsed by the engine, which can reach
    nothing.

    :raises NotFound: no catalog entry has this name.
    :raises WeightsError: not a GGUF file this engine reads, not the hash the catalog knows, or no
        room.
    """
    entry = Catalog.load().entry(name)
    _check_gguf(file)
    target = folder(settings) / entry.file
    try:
        if file.resolve() != target.resolve():
            sha256 = _copy(file, target, expected=entry.sha256)
        else:
            sha256 = digest(target)
        added = Weights(entry.file, sha256, target.stat().st_size)
        registry = _registry(settings)
        registry[entry.name] = added
        write_json(_registry_file(settings), registry)
    except OSError as error:
        raise WeightsError(f"{file} cannot be copied: {error.strerror}.") from error
    return added


def locate(settings: Settings, entry: Entry) -> tuple[Path, str]:
    """The file of an entry and the hash it must have, without reading it.

    :raises WeightsError: the weights are not on this machine.
    """
    known = _registry(settings).get(entry.name)
    target = folder(settings) / entry.file
    if known is not None and target.is_file():
        return target, known.sha256
    packaged = entry.packaged_file()
    if packaged is not None and entry.sha256 is not None:
        return (target if target.is_file() else packaged), entry.sha256
    raise WeightsError(
        f"The weights of {entry.name} are not on this machine.",
        hint=f"Bring {entry.file} and run 'appliance models add FILE'.",
    )


def verify(settings: Settings, name: str) -> Weights:
    """Hash the file again and compare with what was written down.

    :raises NotFound: no catalog entry has this name.
    :raises WeightsError: the file is missing, unreadable or has changed.
    """
    entry = Catalog.load().entry(name)
    path, expected = locate(settings, entry)
    try:
        actual, size = digest(path), path.stat().st_size
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error
    if actual != expected:
        raise WeightsError(
            f"{path} has changed: its SHA-256 is {actual}, expected {expected}.",
            hint="Remove the file and add it again from a good copy.",
        )
    return Weights(path.name, actual, size)


def active(settings: Settings) -> Entry:
    """The model to serve: the setting, else what :func:`activate` wrote, else the embedded one.

    :raises NotFound: the setting or the remembered choice is in no catalog.
    :raises WeightsError: the remembered choice cannot be read.
    """
    catalog = Catalog.load()
    if settings.model:
        return catalog.entry(settings.model)
    try:
        chosen = msgspec.json.decode(_active_file(settings).read_bytes(), type=_Active)
    except FileNotFoundError:
        return catalog.entry(EMBEDDED)
    except (OSError, msgspec.MsgspecError) as error:
        raise WeightsError(
            f"{_active_file(settings)} cannot be read: {error}.",
            hint="Choose again with 'appliance models use NAME'.",
        ) from error
    return catalog.entry(chosen.model)


def activate(settings: Settings, name: str) -> None:
    """Remember ``name`` as the model to serve from the next start on.

    :raises NotFound: no catalog entry has this name.
    """
    entry = Catalog.load().entry(name)
    write_json(_active_file(settings), _Active(entry.name))


def write_json(path: Path, document: object) -> None:
    """Write a small JSON file in one step: readers see the old one or the new one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _active_file(settings: Settings) -> Path:
    return settings.data_dir / "engine" / "active.json"


def _registry_file(settings: Settings) -> Path:
    return folder(settings) / "registry.json"


def _registry(settings: Settings) -> dict[str, Weights]:
    try:
        return msgspec.json.decode(_registry_file(settings).read_bytes(), type=dict[str, Weights])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        raise WeightsError(f"{_registry_file(settings)} cannot be read: {error}.") from error


def _check_gguf(file: Path) -> None:
    try:
        if not file.is_file():
            raise WeightsError(f"{file} is not a file.", hint="Name a .gguf file.")
        with file.open("rb") as opened:
            head = opened.read(8)
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error.strerror}.") from error
    if file.suffix.lower() != ".gguf" or head[:4] != _GGUF_MAGIC:
        raise WeightsError(
            f"{file.name} is not a GGUF file.",
            hint="Only GGUF weights are accepted; pickled checkpoints can run code.",
        )
    if re.search(r"-\d{5}-of-\d{5}$", file.stem):
        raise WeightsError(
            f"{file.name} is one part of a split file.",
            hint="Join the parts first with 'llama-gguf-split --merge'.",
        )
    version = int.from_bytes(head[4:8], "little")
    if len(head) < 8 or version not in _GGUF_VERSIONS:
        raise WeightsError(
            f"{file.name} is GGUF version {version}; versions 2 and 3, little-endian, are read.",
            hint="Convert the model again with a present llama.cpp.",
        )


def _copy(source: Path, target: Path, *, expected: str | None) -> str:
    """Copy in blocks while hashing, then give the file its name; returns the SHA-256.

    :raises WeightsError: the hash is not ``expected``, or there is no room.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if shutil.disk_usage(target.parent).free < source.stat().st_size + _ROOM_TO_SPARE:
        raise WeightsError(
            f"No room for {source.name} in {target.parent}.", hint="Make room, then try again."
        )
    for left in target.parent.glob(f"{target.name}.*.part"):
        if left.stat().st_mtime < time.time() - _ABANDONED:
            left.unlink(missing_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    hashed = hashlib.sha256()
    try:
        with source.open("rb") as reader, partial.open("wb") as writer:
            while block := reader.read(_BLOCK):
                hashed.update(block)
                writer.write(block)
            writer.flush()
            os.fsync(writer.fileno())
        if expected is not None and hashed.hexdigest() != expected:
            raise WeightsError(
                f"{source} is not the file the catalog knows: SHA-256 {hashed.hexdigest()}.",
                hint="Take the file from a trusted source again.",
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return hashed.hexdigest()

"""Whether a bundle is what was signed. Nothing is unpacked; nothing outside the file is believed.

First the archive's own form, then the signature over the list of hashes, then each file by the
list. What is not on the list is refused as well as what does not fit it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.errors import BundleError
from appliance.operations.bundle import signing
from appliance.operations.bundle.archive import Archive
from appliance.operations.bundle.layout import (
    MANIFEST,
    NAME,
    NEEDED,
    SIGNATURE,
    SUMS,
    VERSION,
    Manifest,
    top_folder,
)

_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


@dataclass(frozen=True, slots=True)
class Verified:
    """A bundle that is whole: what it says of itself, its files' sizes in bytes and hashes."""

    manifest: Manifest
    fingerprint: str
    sizes: dict[str, int]
    hashes: dict[str, str]


def verify(bundle: Path, public: bytes, *, also: dict[str, bytes] | None = None) -> Verified:
    """Check a bundle against a public key (PEM).

    :param also: names of files whose contents the caller wants; they are filled in.
    :raises BundleError: anything is not as it was signed; the error names the file.
    """
    try:
        with bundle.open("rb") as file:
            archive = Archive(file, bundle.name)
            for name in NEEDED:
                if name not in archive.members:
                    raise BundleError(f"{bundle.name} lacks {name}.")
            sums = archive.read(SUMS)
            if not signing.check(sums, archive.read(SIGNATURE), public):
                raise BundleError(
                    f"{SIGNATURE} of {bundle.name} is not by the key "
                    f"{signing.fingerprint(public)}, or {SUMS} was changed.",
                    hint="Get the bundle or the key (--key FILE) from whoever made it.",
                )
            listed = _listed(sums)
            _compare(archive, listed, bundle.name)
            if also is not None:
                also.update((name, archive.read(name)) for name in list(also))
            return Verified(
                _manifest(archive),
                signing.fingerprint(public),
                {path: member.size for path, member in archive.members.items()},
                listed,
            )
    except OSError as error:
        raise BundleError(f"{bundle} cannot be read: {error.strerror}.") from error


def _listed(sums: bytes) -> dict[str, str]:
    listed: dict[str, str] = {}
    for line in sums.decode("ascii", "replace").splitlines():
        found = _LINE.fullmatch(line)
        if found is None or found[2] in listed:
            raise BundleError(f"{SUMS} has a line that it may not have: {line!r}.")
        listed[found[2]] = found[1]
    return listed


def _compare(archive: Archive, listed: dict[str, str], name: str) -> None:
    there = archive.members.keys() - {SUMS, SIGNATURE}
    for path in sorted(listed.keys() - there):
        raise BundleError(f"{name} lacks {path}.")
    for path in sorted(there - listed.keys()):
        raise BundleError(f"{name} holds a file that was not signed: {path}.")
    for path, expected in listed.items():
        if archive.digest(path) != expected:
            raise BundleError(f"{path} in {name} was changed.")


def _manifest(archive: Archive) -> Manifest:
    try:
        manifest = msgspec.json.decode(archive.read(MANIFEST), type=Manifest)
    except msgspec.MsgspecError as error:
        raise BundleError(f"{MANIFEST} cannot be read: {error}.") from error
    named = archive.top == top_folder(manifest.version)
    if manifest.name != NAME or not VERSION.fullmatch(manifest.version) or not named:
        raise BundleError(f"{MANIFEST} does not describe a bundle of this product.")
    return manifest

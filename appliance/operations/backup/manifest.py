"""What a backup says of itself, in ``manifest.json``."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from appliance.errors import BackupRefused
from appliance.operations.backup.contents import fate

FORMAT: Final = 1
PRODUCT: Final = "smartsupport-appliance"
MANIFEST_MAX: Final = 4 * 2**20
"""Largest manifest that is read, in bytes; one of a desk in use has some 10 kB."""
MEMBERS_MAX: Final = 1_000

STATE: Final = "state/"
"""Names of files of the data folder begin with it; the rest is their path there."""
CONFIGURATION: Final = "configuration.json"
CONFIG_FILE: Final = "appliance.toml"
SECRETS: Final = "secrets.sealed"
Kind = Literal["sqlite", "postgresql"]
DATABASE: Final[dict[Kind, str]] = {"sqlite": "database.sqlite", "postgresql": "database.dump"}

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the backup; ``size`` in bytes."""

    name: str
    size: int
    sha256: str


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As ``storage.snapshots.TableSum``."""

    rows: int
    sha256: str


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model whose weights the desk had: its name in the catalog, its file and that one's hash."""

    name: str
    file: str
    sha256: str | None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that is compared when the backup is restored.

    ``place`` tells desks apart that share a folder of backups. ``answers`` is the head of the
    answer records, SEQ:DIGEST. ``secrets`` holds a fingerprint of each secret the desk had, whether
    or not it travels. ``left_out`` names files of the data folder that no rule covers.
    """

    format: int
    product: str
    version: str
    id: str
    created: datetime
    scheduled: bool
    place: str
    database: Kind
    revision: str
    tables: dict[str, Table]
    answers: str | None
    serves: str
    models: list[Model]
    secrets: dict[str, str]
    left_out: list[str]
    members: list[Member]

    @property
    def sealed(self) -> bool:
        """Whether the secrets travel along."""
        return any(member.name == SECRETS for member in self.members)

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return sum(member.size for member in self.members)


def encode(manifest: Manifest) -> bytes:
    """For people as well: indented."""
    return msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"


def decode(text: bytes) -> Manifest:
    """Read and judge a manifest that may come from anybody.

    :raises BackupRefused: it is none, of a newer format, or names what no backup of ours has.
    """
    try:
        head = msgspec.json.decode(text, type=dict[str, Any])
        if head.get("product") != PRODUCT:
            raise BackupRefused("This is no backup of an appliance.")
        if head.get("format") != FORMAT:
            raise BackupRefused(
                f"The backup has format {head.get('format')}; this release reads {FORMAT}.",
                hint="Install the release that made it, or a newer one.",
            )
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BackupRefused(f"The manifest cannot be read: {error}") from error
    names = [member.name for member in manifest.members]
    odd = [name for name in names if not _may_be(name, manifest.database)]
    if odd or len(set(names)) < len(names) or len(names) > MEMBERS_MAX:
        raise BackupRefused("The manifest names files that no backup has.")
    if DATABASE[manifest.database] not in names:
        raise BackupRefused("The backup holds no database.")
    if manifest.created.tzinfo is None:
        raise BackupRefused("The manifest tells a time without its zone.")
    if any(m.size < 0 or not _DIGEST.fullmatch(m.sha256) for m in manifest.members):
        raise BackupRefused("The manifest is damaged.")
    return manifest


def _may_be(name: str, kind: Kind) -> bool:
    if name.startswith(STATE):
        return fate(name.removeprefix(STATE)) == "saved"
    return name in (DATABASE[kind], CONFIGURATION, CONFIG_FILE, SECRETS)

"""Secrets in a backup: encrypted with a passphrase, or not there.

Argon2id makes a key of the passphrase, with the parameters that RFC 9106 recommends where memory
is short; AES-256-GCM encrypts and authenticates under it. The backup's id is bound in, so that
the secrets of one backup cannot be put into another.
"""

from __future__ import annotations

import base64
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.errors import BackupUnsuited, InvalidInput

PASSPHRASE_MIN: Final = 12
"""Characters. Whoever holds the file can guess for as long as they like."""
PASSPHRASE_MAX: Final = 4_096
FILE_MAX: Final = 2**20
"""Largest secret file, in bytes."""

TIME_COST: Final = 3
MEMORY_KIB: Final = 65_536
PARALLELISM: Final = 4
_KEY_BYTES: Final = 32
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_USE: Final = b"smartsupport-appliance backup secrets 1:"


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    salt: bytes
    nonce: bytes
    text: bytes


def seal(files: Mapping[str, bytes], passphrase: str, backup_id: str) -> bytes:
    """Encrypt files, by name, into one."""
    salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES)
    plain = msgspec.json.encode({n: base64.b64encode(f).decode() for n, f in files.items()})
    text = AESGCM(_key(passphrase, salt)).encrypt(nonce, plain, _USE + backup_id.encode())
    return msgspec.json.encode(_Sealed(salt, nonce, text))


def unseal(sealed: bytes, passphrase: str, backup_id: str) -> dict[str, bytes]:
    """The files again.

    :raises BackupUnsuited: the passphrase is another, or a byte was changed.
    """
    try:
        found = msgspec.json.decode(sealed, type=_Sealed)
        if len(found.nonce) != _NONCE_BYTES or len(found.salt) != _SALT_BYTES:
            raise InvalidTag
        cipher = AESGCM(_key(passphrase, found.salt))
        plain = cipher.decrypt(found.nonce, found.text, _USE + backup_id.encode())
        files = msgspec.json.decode(plain, type=dict[str, str])
        return {name: base64.b64decode(text, validate=True) for name, text in files.items()}
    except (InvalidTag, msgspec.MsgspecError, ValueError) as error:
        raise BackupUnsuited(
            "The secrets of the backup cannot be opened.",
            hint="Check the passphrase; without --passphrase-file everything else is restored.",
        ) from error


def read_passphrase(source: str) -> str:
    """The first line of a file, or of stdin for ``-``. There is no option for the passphrase
    itself: arguments can be read by everybody on the machine.

    :raises InvalidInput: it cannot be read, or is too short to protect anything.
    """
    try:
        if source == "-":
            line = sys.stdin.readline(PASSPHRASE_MAX)
        else:
            with Path(source).open(encoding="utf-8") as file:
                line = file.readline(PASSPHRASE_MAX)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            "The passphrase cannot be read.", hint="Name a text file with it, or - for stdin."
        ) from error
    passphrase = line.rstrip("\r\n")
    if len(passphrase) < PASSPHRASE_MIN:
        raise InvalidInput(
            f"The passphrase has fewer than {PASSPHRASE_MIN} characters.",
            hint="Take several random words, or: openssl rand -base64 24",
        )
    return passphrase


def _key(passphrase: str, salt: bytes) -> bytes:
    return hash_secret_raw(
        passphrase.encode(), salt, TIME_COST, MEMORY_KIB, PARALLELISM, _KEY_BYTES, Type.ID
    )

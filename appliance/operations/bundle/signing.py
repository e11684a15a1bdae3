"""Ed25519 signatures by the ``openssl`` program: checking one needs no more than a server has."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from appliance.errors import BundleError


def make_key(path: Path) -> None:
    """Write a new private key that only this user reads, and its public half to ``path.pub``.

    :raises BundleError: there is a key already, or no openssl.
    """
    key = _openssl("genpkey", "-algorithm", "ed25519")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        public_file(path).write_bytes(public_half(path))
    except FileExistsError as error:
        raise BundleError(
            f"{path} exists already.",
            hint="A key is never overwritten: bundles signed by it would no longer be believed.",
        ) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be written: {error.strerror}.", hint="") from error


def public_file(path: Path) -> Path:
    """Where the public half of a key lies, or what travels beside a bundle."""
    return path.with_name(f"{path.name}.pub")


def public_half(key: Path) -> bytes:
    """The public half of a private key, PEM.

    :raises BundleError: no readable ed25519 key.
    """
    _require_ed25519("-in", key)
    return _openssl("pkey", "-in", str(key), "-pubout")


def fingerprint(public: bytes) -> str:
    """What people compare: the hash of the PEM file, as ``sha256sum FILE.pub`` prints it."""
    return f"sha256:{hashlib.sha256(public).hexdigest()}"


def sign(data: bytes, key: Path) -> bytes:
    """The raw signature, 64 bytes: for one key and one text it is always the same.

    :raises BundleError: no readable ed25519 key.
    """
    _require_ed25519("-in", key)
    with tempfile.TemporaryDirectory(prefix="appliance-sign-") as folder:
        text = Path(folder, "text")
        text.write_bytes(data)
        return _openssl("pkeyutl", "-sign", "-rawin", "-inkey", str(key), "-in", str(text))


def check(data: bytes, signature: bytes, public: bytes) -> bool:
    """Whether the signature of the text is by this key.

    :raises BundleError: ``public`` is no ed25519 key.
    """
    with tempfile.TemporaryDirectory(prefix="appliance-verify-") as folder:
        key, text, signed = (Path(folder, name) for name in ("key", "text", "signature"))
        key.write_bytes(public)
        text.write_bytes(data)
        signed.write_bytes(signature)
        _require_ed25519("-pubin", "-in", key)
        words: list[str | Path] = [
            "pkeyutl",
            "-verify",
            "-rawin",
            "-pubin",
            "-inkey",
            key,
            "-in",
            text,
        ]
        return _run([*words, "-sigfile", signed]).returncode == 0


def _require_ed25519(*words: str | Path) -> None:
    done = _run(["pkey", *words, "-noout", "-text_pub"])
    if done.returncode != 0 or not done.stdout.startswith(b"ED25519"):
        raise BundleError(
            f"{words[-1]} is no ed25519 key in PEM form.",
            hint="'appliance bundle keygen' makes one; FILE.pub is its public half.",
        )


def _openssl(*words: str) -> bytes:
    done = _run(list(words))
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise BundleError(f"openssl {words[0]} failed: {said[-1]}.", hint="")
    return done.stdout


def _run(words: Sequence[str | Path]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603 - fixed words and paths, no shell
            ["openssl", *words],  # noqa: S607 - the system's own, wherever it lies
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError as error:
        raise BundleError(
            "The program openssl is not here.", hint="On Debian or Ubuntu: apt install openssl."
        ) from error

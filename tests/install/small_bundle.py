"""Real bundles of a product that is nearly nothing: two made-up wheels, a handful of files."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import msgspec

from appliance.operations.bundle import signing, tree
from appliance.operations.bundle.archive import Content
from appliance.operations.bundle.build import assemble
from appliance.operations.bundle.layout import Manifest, file_name
from appliance.operations.bundle.packages import in_folder

VERSION = "9.8.7"
CREATED = 1_767_225_600

MANIFEST = Manifest(
    name="smartsupport-appliance",
    version=VERSION,
    commit="c0ffee",
    dirty=False,
    python="3.11",
    machine="x86_64",
    glibc="2.28",
    glibcxx="3.4",
    cpu_flags="",
    created=tree.iso(CREATED),
    models=["smollm2-135m"],
    schema="202601010000",
)


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    metadata: str = "",
    tag: str = "py3-none-any",
    files: dict[str, bytes] | None = None,
) -> Path:
    """A wheel that pip installs; ``metadata`` are further lines of METADATA."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    all_files = {
        f"{name.replace('-', '_')}.py": f"VERSION = {version!r}\n".encode(),
        f"{info}/METADATA": (
            f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{metadata}"
        ).encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        **(files or {}),
    }
    rows = [f"{each},sha256={_digest(data)},{len(data)}" for each, data in all_files.items()]
    record = f"{info}/RECORD"
    all_files[record] = "\n".join([*rows, f"{record},,", ""]).encode()
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for each, data in all_files.items():
            # With the clock's time in it two wheels of the same content differ.
            archive.writestr(zipfile.ZipInfo(each), data)
    return path


def make_bundle(folder: Path, key: Path, manifest: Manifest = MANIFEST) -> Path:
    """A whole bundle, signed by ``key``, with the public half beside it."""
    wheels = folder / "wheels"
    text = {"made_up_one-1.0.dist-info/licenses/LICENSE": b"Do as you like.\n"}
    make_wheel(
        wheels,
        "made-up-one",
        metadata="License-Expression: MIT\nRequires-Dist: made-up-two\nSummary: One\n",
        files=text,
    )
    make_wheel(wheels, "made-up-two", metadata="License: BSD\n")
    weights = folder / "Llama-3.2-1B-Instruct-Q4_K_M.gguf"
    weights.write_bytes(b"GGUF" + bytes(20))
    files = {
        "install.sh": Content(b"#!/bin/sh\nexit 0\n", program=True),
        "README.md": Content(b"A made-up product.\n"),
        "appliance/__init__.py": Content(f'__version__ = "{VERSION}"\n'.encode()),
        "kb/empty": Content(b""),
    }
    product = tree.Tree("c0ffee", CREATED, False, files)
    out = folder / file_name(manifest.version)
    extra = {"llama-3.2-1b-instruct": weights}
    assemble(out, manifest, product, in_folder(wheels), extra, key)
    return out


def make_key(folder: Path, name: str = "release.key") -> Path:
    """A private key with its public half beside it."""
    path = folder / name
    signing.make_key(path)
    return path


def changed(manifest: Manifest, **fields: str) -> Manifest:
    """The manifest with some fields of its own."""
    return msgspec.structs.replace(manifest, **fields)


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()

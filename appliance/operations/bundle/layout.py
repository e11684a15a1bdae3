"""What lies where in a bundle, and what its ``BUNDLE.json`` says."""

from __future__ import annotations

import re

import msgspec

from appliance.errors import BundleError

NAME = "smartsupport-appliance"
PYTHON = "3.11"
MACHINE = "x86_64"

MANIFEST = "BUNDLE.json"
LOCK = "requirements.lock"
SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"
SBOM = "sbom.cdx.json"
LICENCES = "LICENSES.txt"
INSTALLER = "install.sh"
WHEELS, TREE, WEIGHTS = "wheels", "tree", "weights"

NEEDED = (MANIFEST, LOCK, SUMS, SIGNATURE, SBOM, LICENCES, INSTALLER)
"""Files that every bundle has in its top folder."""

LLAMA = "llama-cpp-python"
OPENMP = "libgomp.so.1"
"""GCC's OpenMP library, which servers without a compiler lack: it travels in llama.cpp's wheel."""
OPENMP_LICENCE = "GPL-3.0-or-later WITH GCC-exception-3.1"

VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]*")
"""What install.sh takes for a version: it becomes the name of a folder."""

_PART = r"[A-Za-z0-9._+][A-Za-z0-9._+-]*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``BUNDLE.json``.

    ``glibc`` and ``glibcxx`` (symbol versions of libstdc++) are the oldest that the compiled code
    runs with, ``cpu_flags`` the words of ``/proc/cpuinfo`` that it needs, separated by spaces.
    ``created`` is the commit's time, so that a second build of the commit says the same.
    ``may_differ`` names the files that another machine may build with other bytes.
    """

    name: str
    version: str
    commit: str
    dirty: bool
    python: str
    machine: str
    glibc: str
    glibcxx: str
    cpu_flags: str
    created: str
    models: list[str]
    schema: str
    may_differ: list[str] = []


def top_folder(version: str) -> str:
    """The one folder in the tar."""
    return f"{NAME}-{version}"


def file_name(version: str) -> str:
    """What the bundle of a version is called."""
    return f"{NAME}-{version}-cp{PYTHON.replace('.', '')}-linux_{MACHINE}.tar"


def check_path(path: str) -> str:
    """The path itself, if it can mean nothing but a file below the folder it is unpacked into.

    :raises BundleError: it leads out, or has characters that shells and tools read differently.
    """
    if not _PATH.fullmatch(path) or any(part in (".", "..") for part in path.split("/")):
        raise BundleError(f"The bundle holds a path that it may not hold: {path!r}.")
    return path

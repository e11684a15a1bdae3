"""The runtime that reads customers' words has no way out."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

CALLS = (b"getaddrinfo", b"gethostbyname", b"connect", b"sendto", b"sendmsg")
"""What a library that sends something has to ask the C library for, one of them at least."""


def libraries(package: str) -> list[Path]:
    """The compiled parts of an installed package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return sorted(Path(spec.submodule_search_locations[0]).rglob("*.so*"))


def named(library: Path) -> set[bytes]:
    """Which of the calls stand among the names a library looks up."""
    content = library.read_bytes()
    return {call for call in CALLS if re.search(rb"\0" + call + rb"\0", content)}


def test_a_library_that_opens_connections_is_told_apart() -> None:
    """That nothing is found below means something only if it would be."""
    extension = importlib.util.find_spec("_socket")
    assert extension is not None
    # Some builds of Python have it inside the program itself.
    origin = Path(str(extension.origin))
    program = origin if origin.is_file() else Path(sys.executable).resolve()
    assert {b"getaddrinfo", b"connect"} <= named(program)


def test_onnx_runtime_cannot_open_a_connection() -> None:
    """From 1.29 on its builds for Linux carry telemetry over HTTPS, on unless switched off, and the
    client for it inside. Upgrade only to a build without."""
    found = libraries("onnxruntime")
    assert found
    for library in found:
        assert named(library) == set(), library
        assert b"events.data.microsoft.com" not in library.read_bytes(), library

"""What a machine must have for the compiled code in wheels to run on it."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable

from appliance.operations.bundle.packages import Wheel

CPU_FLAGS = "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"
"""x86-64-v2 as /proc/cpuinfo calls it: NumPy's wheels are compiled for it and refuse to load
on less. The others look at run time what the processor can do."""

_LEGACY = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_")
_SYMBOLS = {name: re.compile(rb"\b%s_(\d+(?:\.\d+)+)\0" % name) for name in (b"GLIBC", b"GLIBCXX")}

Release = tuple[int, ...]


def libraries(wheels: Iterable[Wheel]) -> tuple[str, str]:
    """The oldest glibc and the oldest libstdc++ (by its symbols' version) that all run with.

    A wheel's tag tells; what was compiled here is tagged for this machine only, and its files tell.
    """
    glibc: set[Release] = {(2, 17)}
    glibcxx: set[Release] = {(3, 4)}
    for wheel in wheels:
        tagged = {_of_tag(tag.platform) for tag in wheel.tags}
        if () in tagged:
            glibc |= _in_files(wheel, b"GLIBC")
            glibcxx |= _in_files(wheel, b"GLIBCXX")
        else:
            glibc.add(min(tagged))
    return _written(max(glibc)), _written(max(glibcxx))


def chooses_its_processor(wheel: Wheel) -> bool:
    """Whether a wheel of llama.cpp has code for several generations of processors."""
    with zipfile.ZipFile(wheel.path) as archive:
        return "llama_cpp/lib/libggml-cpu-x64.so" in archive.namelist()


def _of_tag(platform: str) -> Release:
    """Empty: made for the machine that compiled it."""
    if platform == "any":
        return (0,)
    if found := _MANYLINUX.match(platform):
        return tuple(map(int, found.groups()))
    return _LEGACY.get(platform.partition("_")[0], ())


def _in_files(wheel: Wheel, name: bytes) -> set[Release]:
    with zipfile.ZipFile(wheel.path) as archive:
        return {
            tuple(map(int, version.split(b".")))
            for each in archive.namelist()
            if ".so" in each
            for version in _SYMBOLS[name].findall(archive.read(each))
        }


def _written(release: Release) -> str:
    return ".".join(map(str, release))

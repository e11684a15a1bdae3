"""llama-cpp-python compiled for any x86-64 server instead of for the machine that builds.

llama.cpp's CPU code is compiled once for each generation of processors, and the best one is loaded
at run time. Compiling takes long, so the wheel is kept, by all that its bytes depend on.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from appliance.errors import BundleError
from appliance.operations.bundle.layout import LLAMA, OPENMP
from appliance.operations.bundle.packages import in_folder, pins
from appliance.operations.bundle.pip import pip
from appliance.operations.bundle.tree import Tree
from appliance.settings import cache_folder, compiler_environment

BUILDERS = ".constraints/build.txt"

CMAKE_ARGS = (
    "-DGGML_NATIVE=OFF",
    "-DGGML_BACKEND_DL=ON",
    "-DGGML_CPU_ALL_VARIANTS=ON",
    # Beside the other libraries in the wheel. Untyped, CMake would make it a path of this machine.
    "-DGGML_BACKEND_DIR:STRING=llama_cpp/lib",
    "-DCMAKE_INSTALL_RPATH=$ORIGIN",
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
)

_EPOCH = (1980, 1, 1, 0, 0, 0)
_SECONDS = "315532800"
"""The same moment for programs that honour SOURCE_DATE_EPOCH; a zip can tell no earlier one."""
_KEPT_MODE = 0o755 << 16


def portable_wheel(version: str, tree: Tree, say: Callable[[str], None]) -> Path:
    """The wheel of that version, compiled now or kept from before.

    :raises BundleError: no compiler, or no index within reach.
    """
    builders = tree.text(BUILDERS)
    compiler = _output("c++", "--version").partition("\n")[0]
    known = "\n".join((version, compiler, builders, *CMAKE_ARGS, sys.version))
    key = hashlib.sha256(known.encode()).hexdigest()[:16]
    kept = cache_folder() / LLAMA / f"{version}-{key}"
    if kept.is_dir():
        return in_folder(kept)[0].path
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".building-") as work:
        say(f"Compiling {LLAMA} {version} for all processors: once, some 20 minutes on two cores")
        wheel = _compile(version, Path(work), builders)
        done = Path(work, "done")
        done.mkdir()
        normalise(wheel, done / wheel.name, {f"llama_cpp/lib/{OPENMP}": _openmp()})
        try:
            done.rename(kept)
        except OSError:  # somebody else was as quick
            if not kept.is_dir():
                raise
    return in_folder(kept)[0].path


def normalise(source: Path, target: Path, added: dict[str, bytes]) -> None:
    """Write a wheel again with its files in order, one time and one mode, and more files in it."""
    with zipfile.ZipFile(source) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name[-1] != "/"}
    (record,) = (name for name in files if name.endswith(".dist-info/RECORD"))
    files |= added
    rows = [
        f"{name},sha256={_digest(files[name])},{len(files[name])}"
        for name in sorted(files)
        if name != record
    ]
    files[record] = "".join(f"{row}\n" for row in [*rows, f"{record},,"]).encode()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr, info.compress_type = _KEPT_MODE, zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])


def _compile(version: str, work: Path, builders: str) -> Path:
    """Compile in ``work`` with pinned tools; no path of it gets into the result."""
    pinned = [f"{name}=={release}" for name, release in pins(builders).items()]
    tools = work / "tools"
    subprocess.run([sys.executable, "-m", "venv", tools], check=True, capture_output=True)  # noqa: S603
    python = tools / "bin" / "python"
    pip("install", "--quiet", *pinned, python=python)
    environment = compiler_environment(tools / "bin") | {"SOURCE_DATE_EPOCH": _SECONDS}
    exact = f"{LLAMA}=={version}"
    plain = ["--no-deps", "--no-binary", LLAMA, "--no-cache-dir", "--no-build-isolation"]
    pip(
        "download",
        "--quiet",
        *plain,
        "--dest",
        work / "sdist",
        exact,
        python=python,
        env=environment,
    )
    (packed,) = (work / "sdist").iterdir()
    with tarfile.open(packed) as archive:
        archive.extractall(work / "source", filter="data")
    (source,) = (work / "source").iterdir()
    mapped = f"-ffile-prefix-map={source}=llama-cpp-python"
    environment |= {"CFLAGS": mapped, "CXXFLAGS": mapped, "CMAKE_ARGS": " ".join(CMAKE_ARGS)}
    words = ["wheel", "--quiet", *plain, "--config-settings", "build-dir=build"]
    pip(*words, "--wheel-dir", work / "wheel", source, python=python, env=environment)
    (wheel,) = (work / "wheel").iterdir()
    return wheel


def _openmp() -> bytes:
    path = Path(_output("gcc", f"-print-file-name={OPENMP}").strip())
    if not path.is_absolute():
        raise BundleError(
            f"The compiler has no {OPENMP}.", hint="On Debian or Ubuntu: apt install g++."
        )
    return path.read_bytes()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _output(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        raise BundleError(
            f"{words[0]} is needed.", hint="On Debian or Ubuntu: apt install g++."
        ) from error
    return done.stdout

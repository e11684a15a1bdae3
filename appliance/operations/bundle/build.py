"""Building a bundle: the commit's tree, the wheels that were tested with it, weights, who made
what; then hashes over all of it and a signature over the hashes.

Two builds of one commit have the same bytes. The one file whose bytes depend on the machine that
builds is the wheel of llama.cpp, which is compiled here: another compiler may write another one,
and ``BUNDLE.json`` says so.
"""

from __future__ import annotations

import platform
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.errors import BundleError
from appliance.llm import weights
from appliance.llm.catalog import EMBEDDED, Catalog
from appliance.operations.bundle import (
    archive,
    layout,
    needs,
    packages,
    sbom,
    signing,
    tree,
    verify,
)
from appliance.operations.bundle.archive import Content
from appliance.operations.bundle.carried import carried
from appliance.operations.bundle.wheels import check_complete, collect, pinned
from appliance.settings import HOME, Settings
from appliance.storage import migrate

Say = Callable[[str], None]

_VERSION_LINE = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Order:
    """What to build. ``wheels`` is a folder to keep the wheels in: filled where it is empty, used
    as it is where it is not. ``suffix`` goes behind the version, for rehearsing an upgrade."""

    key: Path
    out: Path | None = None
    models: Sequence[str] = ()
    wheels: Path | None = None
    suffix: str = ""
    allow_dirty: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """The bundle that was made; ``size`` in bytes."""

    path: Path
    size: int
    key: Path
    verified: verify.Verified


def build(settings: Settings, order: Order, say: Say) -> Built:
    """Build, sign and verify one bundle.

    :raises BundleError: something is not at hand, or not what was tested.
    :raises WeightsError: a model's weights are not on this machine or have changed.
    """
    _require_python()
    signing.public_half(order.key)
    product = tree.read(HOME, allow_dirty=order.allow_dirty)
    product, version = _versioned(product, order.suffix)
    out = (order.out or Path(layout.file_name(version))).absolute()
    extra = _extra_weights(settings, order.models, say)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".bundle-") as work:
        folder = order.wheels or Path(work, "wheels")
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            collect(product, folder, say)
        wheels = packages.in_folder(folder)
        packages.check_pins(wheels, pinned(product))
        _require_portable(wheels)
        say(f"Resolving {len(wheels)} wheels without an index")
        check_complete(product, wheels, folder)
        say(f"Writing {out.name}")
        glibc, glibcxx = needs.libraries(wheels)
        manifest = layout.Manifest(
            name=layout.NAME,
            version=version,
            commit=product.commit,
            dirty=product.dirty,
            python=layout.PYTHON,
            machine=layout.MACHINE,
            glibc=glibc,
            glibcxx=glibcxx,
            cpu_flags=needs.CPU_FLAGS,
            created=tree.iso(product.created),
            models=[EMBEDDED, *sorted(extra)],
            schema=migrate.head(),
            may_differ=[f"{layout.WHEELS}/{each.path.name}" for each in wheels if _made_here(each)],
        )
        assemble(out, manifest, product, wheels, extra, order.key)
    say("Verifying it")
    public = signing.public_file(out)
    checked = verify.verify(out, public.read_bytes())
    return Built(out, out.stat().st_size, public, checked)


def assemble(
    out: Path,
    manifest: layout.Manifest,
    product: tree.Tree,
    wheels: Sequence[packages.Wheel],
    extra: dict[str, Path],
    key: Path,
) -> None:
    """Put a bundle together and its public key beside it.

    :param extra: weights files by the names of their models.
    """
    parts = carried(wheels, extra)
    files = {f"{layout.TREE}/{path}": content for path, content in product.files.items()}
    files |= {f"{layout.WHEELS}/{wheel.path.name}": Content(wheel.path) for wheel in wheels}
    files |= {f"{layout.WEIGHTS}/{path.name}": Content(path) for path in extra.values()}
    version = manifest.version
    files |= {
        layout.MANIFEST: Content(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"),
        layout.LOCK: Content(packages.lock(wheels).encode()),
        layout.SBOM: Content(sbom.document(version, manifest.created, wheels, parts)),
        layout.LICENCES: Content(sbom.licences(version, wheels, parts)),
        layout.INSTALLER: product.files[layout.INSTALLER],
    }
    sums = "".join(f"{files[path].digest()}  {path}\n" for path in sorted(files)).encode()
    files[layout.SUMS] = Content(sums)
    files[layout.SIGNATURE] = Content(signing.sign(sums, key))
    archive.write(out, layout.top_folder(version), files, product.created)
    signing.public_file(out).write_bytes(signing.public_half(key))


def _require_python() -> None:
    here = ("{}.{}".format(*sys.version_info[:2]), platform.machine(), sys.platform)
    if here != (layout.PYTHON, layout.MACHINE, "linux"):
        raise BundleError(
            f"Bundles are for Python {layout.PYTHON} on Linux {layout.MACHINE}; "
            f"this is {here[0]} on {here[2]} {here[1]}.",
            hint="Build with the Python and on the kind of machine that it is for.",
        )


def _versioned(product: tree.Tree, suffix: str) -> tuple[tree.Tree, str]:
    """The tree's version; with a suffix, in the tree's own file as well, so that what is installed
    knows what it is."""
    text = product.text(tree.VERSION_FILE)
    found = _VERSION_LINE.search(text)
    version = f"{found[1]}{suffix}" if found else ""
    if not found or not layout.VERSION.fullmatch(version):
        raise BundleError(f"{version!r} is no version that a bundle may have.", hint="")
    if not suffix:
        return product, version
    renamed = text[: found.start(1)] + version + text[found.end(1) :]
    files = product.files | {tree.VERSION_FILE: Content(renamed.encode())}
    return tree.Tree(product.commit, product.created, product.dirty, files), version


def _extra_weights(settings: Settings, models: Sequence[str], say: Say) -> dict[str, Path]:
    found = {}
    for name in models:
        entry = Catalog.load().entry(name)
        if entry.package is None:
            say(f"Hashing the weights of {entry.name}")
            weights.verify(settings, entry.name)
            found[entry.name] = weights.locate(settings, entry)[0]
    return found


def _made_here(wheel: packages.Wheel) -> bool:
    return any(tag.platform == f"linux_{layout.MACHINE}" for tag in wheel.tags)


def _require_portable(wheels: Sequence[packages.Wheel]) -> None:
    for wheel in wheels:
        if _made_here(wheel) and not needs.chooses_its_processor(wheel):
            raise BundleError(
                f"{wheel.path.name} was compiled for one kind of processor.",
                hint="Let 'appliance bundle build' compile it: give --wheels an empty folder.",
            )

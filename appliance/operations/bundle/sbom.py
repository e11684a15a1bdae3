"""What is in a bundle and under which licences: a CycloneDX document for programs, one text for
people.

Nothing in it depends on when or where it was written: its serial number follows from its contents.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.operations.bundle.layout import NAME
from appliance.operations.bundle.packages import Wheel

SPEC = "1.6"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:smartsupport-appliance:sbom")
_RULE = "=" * 100


@dataclass(frozen=True, slots=True)
class Part:
    """What is in the bundle without being a Python package of that name: weights, a library copied
    into a wheel. ``inside`` names the file of the bundle that carries it."""

    name: str
    kind: str
    licence: str
    inside: str
    version: str = ""
    sha256: str = ""
    spdx: bool = True


def document(version: str, created: str, wheels: Sequence[Wheel], parts: Iterable[Part]) -> bytes:
    """The SBOM: CycloneDX 1.6 as JSON.

    :param created: the commit's time, ISO 8601.
    """
    there = {wheel.name: wheel.purl for wheel in wheels}
    others = [_part(part) for part in parts]
    root = f"pkg:generic/{NAME}@{version}"
    needed = {
        wheel.purl: sorted(there[name] for name in wheel.needs() & there.keys()) for wheel in wheels
    }
    wanted_by_none = sorted(set(there.values()).difference(*needed.values()))
    body: dict[str, Any] = {
        "metadata": {
            "timestamp": created,
            "component": {"type": "application", "bom-ref": root, "name": NAME, "version": version},
        },
        "components": [*map(_wheel, wheels), *others],
        "dependencies": [
            {"ref": root, "dependsOn": [*wanted_by_none, *(each["bom-ref"] for each in others)]},
            *({"ref": purl, "dependsOn": on} for purl, on in sorted(needed.items())),
        ],
    }
    serial = uuid.uuid5(_NAMESPACE, json.dumps(body, sort_keys=True))
    head = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": serial.urn,
        "version": 1,
    }
    return json.dumps(head | body, indent=1, ensure_ascii=False).encode() + b"\n"


def licences(version: str, wheels: Sequence[Wheel], parts: Iterable[Part]) -> bytes:
    """``LICENSES.txt``: a table, then the texts that the packages bring along."""
    rows = [(wheel.name, wheel.version, wheel.licence[0]) for wheel in wheels]
    rows += [(part.name, part.version, f"{part.licence} (in {part.inside})") for part in parts]
    lines = [
        f"What {NAME} {version} consists of beside its own code, and under which licences.",
        "",
    ]
    lines += [f"{name:32} {release:20} {licence}" for name, release, licence in rows]
    for wheel in wheels:
        for name, text in wheel.licence_texts().items():
            lines += ["", _RULE, f"{wheel.name} {wheel.version}: {name}", _RULE, "", text.rstrip()]
    return "\n".join(line.replace("\r\n", "\n") for line in lines).encode() + b"\n"


def _wheel(wheel: Wheel) -> dict[str, Any]:
    licence, is_spdx = wheel.licence
    return {
        "type": "library",
        "bom-ref": wheel.purl,
        "name": wheel.name,
        "version": wheel.version,
        **({"description": wheel.summary} if wheel.summary else {}),
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
        "licenses": _licences(licence, is_spdx),
        "purl": wheel.purl,
        "properties": [{"name": f"{NAME}:file", "value": f"wheels/{wheel.path.name}"}],
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        "type": part.kind,
        "bom-ref": f"{part.kind}:{part.name}",
        "name": part.name,
        **({"version": part.version} if part.version else {}),
        **({"hashes": [{"alg": "SHA-256", "content": part.sha256}]} if part.sha256 else {}),
        "licenses": _licences(part.licence, part.spdx),
        "properties": [{"name": f"{NAME}:file", "value": part.inside}],
    }


def _licences(licence: str, is_spdx: bool) -> list[dict[str, Any]]:
    return [{"expression": licence}] if is_spdx else [{"license": {"name": licence}}]

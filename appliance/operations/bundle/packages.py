"""What wheels say of themselves: name, version, licence, what they need; and the lock over them."""

from __future__ import annotations

import email.parser
import email.policy
import hashlib
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from appliance.errors import BundleError

_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""Classifiers that mean one licence. "BSD License" means several and stays a name."""

_SAID = {
    "apache license, version 2.0": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "mit license": "MIT",
    "isc license": "ISC",
    "3-clause bsd license": "BSD-3-Clause",
}
"""Ways of writing a licence before there were identifiers."""

_LICENCE_FILES = re.compile(
    r"[^/]+\.dist-info/(licenses/.+|(LICEN[CS]E|COPYING|NOTICE|COPYRIGHT)[^/]*)", re.IGNORECASE
)


@dataclass(frozen=True)
class Wheel:
    """One wheel file."""

    path: Path

    @cached_property
    def _parsed(self) -> tuple[str, str, frozenset[Tag]]:
        try:
            name, version, _, tags = parse_wheel_filename(self.path.name)
        except InvalidWheelFilename as error:
            raise BundleError(f"{self.path.name} is no wheel.", hint="Remove it.") from error
        return name, str(version), tags

    @property
    def name(self) -> str:
        """Canonical: lower case, dashes."""
        return self._parsed[0]

    @property
    def version(self) -> str:
        """With its local part, as in ``2.13.0+cpu``."""
        return self._parsed[1]

    @property
    def tags(self) -> frozenset[Tag]:
        """What it runs on."""
        return self._parsed[2]

    @cached_property
    def sha256(self) -> str:
        """In hex."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def purl(self) -> str:
        """Its package URL, which names it in the SBOM."""
        return f"pkg:pypi/{self.name}@{self.version.replace('+', '%2B')}"

    @cached_property
    def metadata(self) -> Message:
        """Its METADATA.

        :raises BundleError: it is damaged.
        """
        try:
            with zipfile.ZipFile(self.path) as archive:
                (name,) = (
                    each
                    for each in archive.namelist()
                    if re.fullmatch(r"[^/]+\.dist-info/METADATA", each)
                )
                parser = email.parser.BytesParser(policy=email.policy.compat32)
                return parser.parsebytes(archive.read(name))
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise BundleError(
                f"{self.path.name} is damaged: {error}.", hint="Fetch it again."
            ) from error

    @property
    def licence(self) -> tuple[str, bool]:
        """The licence, and whether it is an SPDX expression or merely a name."""
        given = [self.metadata.get("License-Expression"), self.metadata.get("License")]
        for text in filter(None, given):
            line = text.strip().partition("\n")[0].strip()
            said = _SAID.get(line.lower(), line)
            try:
                return str(canonicalize_license_expression(said)), True
            except InvalidLicenseExpression:
                continue
        named = [
            each.rpartition(" :: ")[2]
            for each in self.metadata.get_all("Classifier", [])
            if each.startswith("License :: ")
        ]
        known = [_CLASSIFIERS[each] for each in named if each in _CLASSIFIERS]
        if len(known) == len(named) == 1:
            return known[0], True
        first = (given[1] or "").strip().partition("\n")[0]
        return (" / ".join(named) or first or "see its licence file"), False

    @property
    def summary(self) -> str:
        """One line, by its makers."""
        return str(self.metadata.get("Summary") or "").strip()

    def needs(self) -> set[str]:
        """Names of what it requires on this machine, extras left out."""
        environment: dict[str, str] = {**default_environment(), "extra": ""}  # type: ignore[dict-item]
        wanted = map(Requirement, self.metadata.get_all("Requires-Dist", []))
        return {
            canonicalize_name(each.name)
            for each in wanted
            if each.marker is None or each.marker.evaluate(environment)
        }

    def licence_texts(self) -> dict[str, str]:
        """Licence and notice files in it, by name."""
        with zipfile.ZipFile(self.path) as archive:
            return {
                name.partition("/")[2]: archive.read(name).decode("utf-8", "replace")
                for name in sorted(archive.namelist())
                if _LICENCE_FILES.fullmatch(name) and not name.endswith("/")
            }


def in_folder(folder: Path) -> list[Wheel]:
    """All wheels of a folder, by name.

    :raises BundleError: it holds something else, or two versions of one package.
    """
    wheels = sorted((Wheel(path) for path in folder.iterdir()), key=lambda wheel: wheel.name)
    for one, next_one in pairwise(wheels):
        if one.name == next_one.name:
            raise BundleError(
                f"{folder} holds {one.name} twice: {one.version} and {next_one.version}.",
                hint="Remove one of them.",
            )
    return wheels


def lock(wheels: Iterable[Wheel]) -> str:
    """``requirements.lock``: exact versions and hashes, for pip's ``--require-hashes``."""
    head = (
        "# Everything there is, so install with --no-deps: of some packages only data files are\n"
        "# used, and what their code would need is left out.\n"
    )
    lines = (f"{each.name}=={each.version} --hash=sha256:{each.sha256}" for each in wheels)
    return head + "".join(f"{line}\n" for line in lines)


def pins(text: str) -> dict[str, str]:
    """Names and versions of a ``.constraints`` file."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, version = line.partition("#")[0].strip().partition("==")
        if equals:
            found[canonicalize_name(name)] = version
    return found


def check_pins(wheels: Iterable[Wheel], wanted: dict[str, str]) -> None:
    """:raises BundleError: a wheel is of no pinned version. A local part (``+cpu``) is a build of
    the version."""
    for wheel in wheels:
        pinned = wanted.get(wheel.name)
        if pinned is None or wheel.version.partition("+")[0] != pinned.partition("+")[0]:
            raise BundleError(
                f"{wheel.path.name} is not what was tested: pinned is {pinned or 'no version'}.",
                hint="Pin it in .constraints/core.txt, or fetch the wheels again.",
            )

"""A redacted archive for support: what the doctor found, never what anybody wrote.

Log lines keep what is known to be ours: numbers and a list of fields. Everything else is left out
by rule, not found by search; what stays is searched for addresses and secrets as well.
"""

from __future__ import annotations

import io
import ipaddress
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

import msgspec

from appliance.domain.redaction import redact
from appliance.errors import InvalidInput
from appliance.operations.doctor.finding import Finding
from appliance.operations.doctor.logbook import journal
from appliance.operations.doctor.services import UNITS, shown
from appliance.operations.release.layout import Layout
from appliance.operations.secrets import told
from appliance.settings import ROOT, Settings
from appliance.storage import migrate
from appliance.storage.database import Database

LOG_SINCE: Final = "2 days ago"
LOG_LINES: Final = 2_000
LOG_FIELDS: Final = (
    *("event", "level", "timestamp", "process", "state", "status", "route", "method", "outcome"),
    *("mode", "category", "model", "file_type", "code", "limit"),
)
"""Fields of our log lines whose words are ours; of all others only numbers stay."""
KINDS: Final = ("password", "key", "iban", "email", "card")
"""What no document may hold. Telephone numbers are in none, and versions look like them."""
SHOWN: Final = (
    *("ActiveState", "SubState", "Result", "NRestarts", "ExecMainStatus", "MemoryCurrent"),
    *("DropInPaths", "IPAddressAllow", "IPIngressBytes", "IPEgressBytes", "TasksCurrent"),
)

_EVENT: Final = re.compile(r"[a-z0-9_ ]+")
_ADDRESS: Final = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:]+)")


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the archive; ``size`` in bytes."""

    name: str
    size: int
    told: str


async def pack(file: Path, settings: Settings | None, findings: Sequence[Finding]) -> list[Member]:
    """Write the archive, readable by this user only; what is in it.

    :raises InvalidInput: the file exists already, or cannot be written.
    """
    counts = await _counts(settings) if settings else {}
    changed = told(settings) if settings else {}
    documents = [
        ("doctor.json", "what the doctor found", findings),
        ("settings.json", "settings that differ from the defaults", changed),
        ("versions.json", "packages and the schema's revision", _versions()),
        ("units.json", "how systemd has the units", {unit: shown(unit, SHOWN) for unit in UNITS}),
        ("counts.json", "rows of each table", counts),
        ("log.json", "log lines of two days, without words of anybody", list(_log(settings))),
    ]
    members = []
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
            for name, words, document in documents:
                content = msgspec.json.format(msgspec.json.encode(cleaned(document)))
                entry = tarfile.TarInfo(f"support/{name}")
                entry.size, entry.mtime = len(content), int(datetime.now(UTC).timestamp())
                entry.mode = 0o600
                archive.addfile(entry, io.BytesIO(content))
                members.append(Member(name, len(content), words))
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be written: {error.strerror}.", hint="Name a file that is not there."
        ) from error
    return members


def cleaned(document: Any) -> Any:
    """The document with every text in it searched for secrets and addresses."""
    found = msgspec.to_builtins(document)
    if isinstance(found, str):
        return _ADDRESS.sub(_masked, redact(found, KINDS).text)
    if isinstance(found, Mapping):
        return {str(name): cleaned(value) for name, value in found.items()}
    if isinstance(found, list):
        return [cleaned(value) for value in found]
    return found


def log_line(line: Mapping[str, Any]) -> dict[str, Any]:
    """What of a log line may leave: fields that are ours, numbers, and where errors came from."""
    withheld = f"[a line of {len(str(line.get('event', '')))} characters]"
    if "level" not in line or "timestamp" not in line:
        # Not ours: the words of a library, which may quote anything.
        return {"event": withheld}
    kept = {
        name: value
        for name, value in line.items()
        if name in LOG_FIELDS or isinstance(value, int | float | bool)
    }
    if "logger" in line or not _EVENT.fullmatch(str(line.get("event"))):
        # A library's words, by our way of writing lines; which library may be told.
        kept["event"] = withheld
        kept |= {"logger": line["logger"]} if "logger" in line else {}
    errors = line.get("exception")
    if isinstance(errors, list):
        kept["exception"] = [_error(each) for each in errors if isinstance(each, Mapping)]
    return kept


def _error(told_error: Mapping[str, Any]) -> dict[str, Any]:
    frames = told_error.get("frames") or []
    places = [f"{frame.get('filename')}:{frame.get('lineno')}" for frame in frames]
    return {"type": told_error.get("exc_type"), "frames": places}


def _log(settings: Settings | None) -> Iterator[dict[str, Any]]:
    lines: Iterable[Mapping[str, Any]] = list(journal(LOG_SINCE, LOG_LINES))
    if not lines and settings is not None:
        # What the foreground runner keeps where systemd is not.
        run = settings.data_dir / "run" if ROOT is None else Layout(ROOT).run
        lines = _files(run.glob("*.log"))
    for line in lines:
        yield log_line(line)


def _files(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for file in sorted(files):
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines[-LOG_LINES:]:
            try:
                found = msgspec.json.decode(line)
            except msgspec.MsgspecError:
                found = None
            yield found if isinstance(found, dict) else {"event": line}


def _versions() -> dict[str, Any]:
    packages = {found.name: found.version for found in distributions()}
    return {"schema": migrate.head(), "packages": dict(sorted(packages.items()))}


async def _counts(settings: Settings) -> dict[str, int]:
    try:
        database = Database(settings.resolved_database_url)
        try:
            return await database.read(lambda records: records.health.rows())
        finally:
            await database.aclose()
    except Exception:  # what is wrong with it stands in the findings
        return {}


def _masked(match: re.Match[str]) -> str:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return match[0]
    return match[0] if address.is_loopback or address.is_unspecified else "[address]"

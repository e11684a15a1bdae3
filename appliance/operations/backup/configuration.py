"""What lies outside of the database and the data folder and yet makes the desk: settings, models,
secrets. Settings are told without secrets; secrets are taken along only to be encrypted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from appliance.errors import ApplianceError, BackupFailed
from appliance.llm import weights
from appliance.llm.catalog import Catalog
from appliance.operations.backup.contents import files
from appliance.operations.backup.manifest import CONFIG_FILE, CONFIGURATION, Model
from appliance.operations.backup.sealing import FILE_MAX
from appliance.operations.secrets import masked, told
from appliance.settings import Settings, closed_credentials, config_file

OUTSIDE: Final[Mapping[str, str]] = {
    "tls_cert_file": "tls-cert.pem",
    "tls_key_file": "tls-key.pem",
    "remote_key_file": "remote-key",
    "database_password_file": "database-password",
}
"""Settings that name a file which is part of the desk, and what it is called in a backup."""

MACHINES: Final = frozenset(
    {
        *("data_dir", "runtime_dir", "host", "port", "database_url", "queue_url", "backup_dir"),
        *("embeddings_dir", "vllm_url", "vllm_model_dir", "vllm_python", "vllm_extra_args"),
        *("engine_threads", "engine_streams", "engine_cache_mib", *OUTSIDE),
    }
)
"""Settings that say where something is on a machine: another machine has its own."""


def told_files(settings: Settings) -> dict[str, bytes]:
    """The settings as every backup carries them: those that differ from their defaults, whether
    they came from the file or the environment; and the file itself, if there is one."""
    described = json.dumps(told(settings), indent=2, ensure_ascii=False) + "\n"
    found = {CONFIGURATION: described.encode()}
    path = config_file()
    if path is not None:
        found[CONFIG_FILE] = _without_secrets(path.read_text(encoding="utf-8")).encode()
    return found


def secret_files(settings: Settings) -> dict[str, bytes]:
    """Everything secret, by the name it has in a backup.

    :raises BackupFailed: one of them cannot be read, or is too large to be a secret.
    """
    if (closed := closed_credentials()) is not None:
        raise BackupFailed(
            f"{closed} cannot be read by this user: its secrets would be missing.",
            hint="Have them handed over by systemd-run; docs/backup.md tells how.",
        )
    named = dict(files(settings.data_dir, "secret"))
    for setting, name in OUTSIDE.items():
        path = getattr(settings, setting)
        if path is not None:
            named[name] = path
    config = config_file()
    if config is not None:
        named[CONFIG_FILE] = config
    return {name: _read(path) for name, path in named.items()}


def fingerprints(settings: Settings) -> dict[str, str]:
    """Of each secret of the data folder what tells it from another one, and no more."""
    return {name: fingerprint(_read(path)) for name, path in files(settings.data_dir, "secret")}


def fingerprint(secret: bytes) -> str:
    """Secrets are 32 random bytes: nobody finds them by trying."""
    return hashlib.sha256(b"appliance backup fingerprint:" + secret).hexdigest()[:16]


def serves(settings: Settings) -> str:
    """The name of the model in charge, or what is wrong with it."""
    try:
        return weights.active(settings).name
    except ApplianceError as error:
        return f"unknown: {error.detail}"


def models(settings: Settings) -> list[Model]:
    """The models whose weights are on this machine."""
    found = []
    for entry in Catalog.load().entries:
        with suppress(ApplianceError):
            path, sha256 = weights.locate(settings, entry)
            found.append(Model(entry.name, path.name, sha256))
    return found


def differing(settings: Settings, described: bytes) -> list[str]:
    """Names of the settings in force that are not as a backup tells them, other than those that
    every machine has its own of."""
    try:
        then: dict[str, Any] = msgspec.json.decode(described, type=dict[str, Any])
    except msgspec.MsgspecError:
        return []
    now = told(settings)
    names = (then.keys() | now.keys()) - MACHINES
    return sorted(name for name in names if then.get(name) != now.get(name))


def _without_secrets(toml: str) -> str:
    """The text with every line that holds a secret masked and turned into a comment."""
    lines = []
    for line in toml.splitlines():
        shown = masked(line)
        lines.append(line if shown == line else f"# {shown}")
    return "\n".join(lines) + "\n"


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BackupFailed(
            f"{path} cannot be read: {error.strerror}.",
            hint="Let the appliance's user read it, or make the backup without secrets.",
        ) from error
    if len(content) > FILE_MAX:
        raise BackupFailed(f"{path} is too large to be a secret.", hint="Move it elsewhere.")
    return content

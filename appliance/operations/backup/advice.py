"""What a restored desk cannot do yet, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import ApplianceError
from appliance.llm import weights
from appliance.llm.catalog import Catalog
from appliance.operations.backup.configuration import OUTSIDE, differing, fingerprint
from appliance.operations.backup.contents import HANDED
from appliance.operations.backup.manifest import CONFIGURATION, Manifest
from appliance.services.withdrawn import Withdrawn
from appliance.settings import Settings

MEANINGS: Mapping[str, tuple[str, str]] = {
    "secrets/webhooks": (
        "Webhooks are signed with secrets that their receivers do not know.",
        "Give every receiver its new one: appliance webhooks list, then appliance webhooks rotate "
        "ID. Or restore again with --passphrase-file from a backup made --with-secrets.",
    ),
    "secrets/visitors": (
        "Visitors of the chat page do not see what they wrote before.",
        "Nothing: they begin new conversations; people of the desk see the old ones.",
    ),
}
"""What a secret that is another one now means."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Something that does not work yet, or has to be known; and what to do."""

    what: str
    todo: str


def give(
    settings: Settings,
    manifest: Manifest,
    members: Mapping[str, Path],
    secrets: Mapping[str, bytes],
    withdrawn: Withdrawn | None,
) -> list[Advice]:
    """Everything the administrator has to know, the gravest first."""
    return [
        *_persons(manifest, withdrawn),
        *_secrets(settings, manifest, secrets),
        *_model(settings, manifest),
        *_settings(settings, members, secrets),
        *(
            Advice(f"{name} was not in the backup.", "Bring it yourself if it is needed.")
            for name in manifest.left_out
        ),
        Advice(
            "Everybody who was signed in has to sign in again.", "Nothing: keys work as before."
        ),
    ]


def _persons(manifest: Manifest, withdrawn: Withdrawn | None) -> list[Advice]:
    if withdrawn is not None:
        return _webhooks(withdrawn)
    return [
        Advice(
            "Persons forgotten, keys revoked, accounts disabled, passwords replaced and webhooks "
            "deleted, switched off or given another secret after "
            f"{manifest.created:%Y-%m-%d %H:%M} UTC are as they were before: there is no desk "
            "here that went on from this backup and could tell.",
            "Do it again for those you know of: DELETE /api/v1/users/{id}, appliance keys revoke, "
            "appliance accounts disable, appliance webhooks delete.",
        )
    ]


def _webhooks(withdrawn: Withdrawn) -> list[Advice]:
    if not withdrawn.webhooks:
        return []
    return [
        Advice(
            f"{withdrawn.webhooks} webhooks are switched off: since the backup they were deleted, "
            "switched off, or given another secret.",
            "See appliance webhooks list. Delete those that were deleted; give those that are to "
            "receive again a new secret (appliance webhooks rotate ID), then: appliance webhooks "
            "update ID --on",
        )
    ]


def _secrets(settings: Settings, manifest: Manifest, secrets: Mapping[str, bytes]) -> list[Advice]:
    found = []
    for name, mark in manifest.secrets.items():
        there = settings.data_dir / name
        if name in secrets or (there.is_file() and fingerprint(there.read_bytes()) == mark):
            continue
        if name == "secrets/webhooks" and not _rows(manifest, "webhooks"):
            continue
        what, todo = MEANINGS.get(
            name, (f"{name} is another one than before.", "See what it is used for.")
        )
        found.append(Advice(what, todo))
    return found


def _model(settings: Settings, manifest: Manifest) -> list[Advice]:
    name = settings.model or manifest.serves
    with suppress(ApplianceError):
        _, sha256 = weights.locate(settings, Catalog.load().entry(name))
        then = next((model.sha256 for model in manifest.models if model.name == name), sha256)
        if then == sha256:
            return []
        return [
            Advice(
                f"The weights of {name} are others than those that served: {sha256[:12]}.",
                "Bring the same file if answers are to be as before: appliance models add FILE.",
            )
        ]
    known = next((model for model in manifest.models if model.name == name), None)
    file = known.file if known else "its file"
    return [
        Advice(
            f"The weights of {name} are not on this machine: answers come from the articles.",
            f"Bring {file}, then: appliance models add {file}",
        )
    ]


def _settings(
    settings: Settings, members: Mapping[str, Path], secrets: Mapping[str, bytes]
) -> list[Advice]:
    found = []
    described = members[CONFIGURATION].read_bytes() if CONFIGURATION in members else b"{}"
    if names := differing(settings, described):
        then = json.loads(described)
        values = ", ".join(f"{name} = {json.dumps(then.get(name))}" for name in names)
        found.append(
            Advice(
                f"Settings that were different then: {values}. (null: the default.)",
                f"Compare the configuration with the file under {HANDED}/ in the data folder.",
            )
        )
    laid = [name for name in OUTSIDE.values() if name in secrets]
    if laid:
        found.append(
            Advice(
                f"{', '.join(laid)} lie under {HANDED}/ in the data folder.",
                "Move them to where the settings name them, or delete them.",
            )
        )
    return found


def _rows(manifest: Manifest, table: str) -> int:
    found = manifest.tables.get(table)
    return found.rows if found else 0

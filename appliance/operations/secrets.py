"""Secrets the appliance makes for itself: files only its own user can read."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import Any

from appliance.errors import SettingsError
from appliance.settings import Settings

SIZE = 32

# As readers of addresses take them: a password reaches up to the first @, whatever stands in it
# (SQLAlchemy), or up to the last one before the path (urllib, of which Redis).
_CREDENTIALS = re.compile(r"(?<=://)[^:/\n]*:[^@\n]*(?:@[^@/?#\n]*)*(?=@)|(?<=password=)[^&\n]*")
_SECRET_OPTION = re.compile(r"(--[\w-]*(?:key|token|password|secret)[\w-]*[= ]).*")


def load_secret(folder: Path, name: str) -> bytes:
    """The secret of that name, made at first use. Two processes that start at once get the same
    one.

    :raises SettingsError: the file is too short, or cannot be read or made.
    """
    path = folder / "secrets" / name
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=f".{name}.")
            temporary = Path(made)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(SIZE))
                file.flush()
                os.fsync(file.fileno())
            try:
                # Linking fails where the name exists: whoever comes first wins, and nobody sees
                # half a file.
                os.link(temporary, path)
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        secret = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"The secret {path} cannot be used: {error.strerror}.") from error
    if len(secret) < SIZE:
        raise SettingsError(
            f"The secret {path} is damaged.",
            hint="Remove the file; a new one is made at the next start.",
        )
    return secret


def told(settings: Settings) -> dict[str, Any]:
    """The settings that differ from their defaults, without passwords in addresses and options."""
    given: dict[str, Any] = settings.model_dump(mode="json", exclude_defaults=True)
    return {name: masked(value) for name, value in given.items()}


def masked(value: Any) -> Any:
    """A setting's value, or a line of the file, without passwords in addresses and options."""
    if isinstance(value, list):
        return [masked(each) for each in value]
    if not isinstance(value, str):
        return value
    return _SECRET_OPTION.sub(r"\1***", _CREDENTIALS.sub("***", value))

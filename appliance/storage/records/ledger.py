"""What the audit log holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that was done: by whom, what, to what. ``action`` reads like ``remote.call``."""

    id: str
    created_at: datetime
    actor: str
    action: str
    target: str
    details: Mapping[str, Any]

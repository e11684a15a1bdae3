"""Customers, the people of the desk, and what lets either of them in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from appliance.domain.policy import Role, StaffRole


@dataclass(frozen=True, slots=True)
class User:
    """A customer, known by the id that the calling system gave."""

    id: str
    name: str | None
    email: str | None
    vip: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. ``user_id`` ties a customer's key to one customer."""

    id: str
    name: str
    role: Role
    user_id: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    def usable(self, at: datetime) -> bool:
        """Neither revoked nor expired at that moment."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody of the desk who signs in by password; the hash of it has no field here.

    ``failures`` counts wrong passwords since the last right one.
    """

    id: str
    username: str
    name: str
    role: StaffRole
    failures: int
    locked_until: datetime | None
    created_at: datetime
    password_changed_at: datetime
    last_login_at: datetime | None
    disabled_at: datetime | None

    def may_sign_in(self, at: datetime) -> bool:
        """Neither disabled nor locked at that moment."""
        return self.disabled_at is None and (self.locked_until is None or at >= self.locked_until)


@dataclass(frozen=True, slots=True)
class StaffSession:
    """A browser that is signed in, by an account or by a key."""

    id: str
    account_id: str | None
    key_id: str | None
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime

"""Accounts of the desk's people. Passwords come as hashes and leave only for being verified."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import insert, select, update

from appliance.domain.policy import StaffRole
from appliance.storage.records import Account
from appliance.storage.repository import Repository, columns_for
from appliance.storage.tables import accounts
from appliance.storage.types import new_id, utc_now

_COLUMNS = columns_for(Account, accounts)
_c = accounts.c


class AccountRepository(Repository):
    """Accounts, disabled and locked ones included: who may sign in is ``Account.may_sign_in``."""

    def add(self, username: str, name: str, role: StaffRole, password_hash: str) -> Account:
        """A new account; a username that is taken breaks a rule of the table."""
        now = utc_now()
        statement = insert(accounts).values(
            id=new_id(),
            username=username,
            name=name,
            role=role,
            password_hash=password_hash,
            failures=0,
            created_at=now,
            password_changed_at=now,
        )
        return self._one(Account, statement.returning(*_COLUMNS))

    def get(self, account_id: str) -> Account | None:
        return self._first(Account, select(*_COLUMNS).where(_c.id == account_id))

    def named(self, username: str, *, lock: bool = False) -> Account | None:
        """The account, or None; ``lock`` as for conversations."""
        statement = select(*_COLUMNS).where(_c.username == username)
        return self._first(Account, statement.with_for_update() if lock else statement)

    def password_hash(self, username: str) -> str | None:
        return self._connection.scalar(select(_c.password_hash).where(_c.username == username))

    def list(self) -> Sequence[Account]:
        """All accounts by username."""
        return self._all(Account, select(*_COLUMNS).order_by(_c.username))

    def set_password(self, account_id: str, password_hash: str) -> None:
        """Replace the password; whoever failed to guess the old one is forgiven."""
        self._update(
            account_id,
            password_hash=password_hash,
            password_changed_at=utc_now(),
            failures=0,
            locked_until=None,
        )

    def rehash(self, account_id: str, password_hash: str) -> None:
        """Store the same password under today's parameters."""
        self._update(account_id, password_hash=password_hash)

    def signed_in(self, account_id: str, when: datetime) -> None:
        self._update(account_id, last_login_at=when, failures=0, locked_until=None)

    def failed(self, account_id: str, failures: int, locked_until: datetime | None) -> None:
        self._update(account_id, failures=failures, locked_until=locked_until)

    def disable(self, account_id: str, when: datetime | None) -> None:
        """Disable an account, or enable it with None."""
        self._update(account_id, disabled_at=when)

    def _update(self, account_id: str, **values: object) -> None:
        self._connection.execute(update(accounts).where(_c.id == account_id).values(**values))

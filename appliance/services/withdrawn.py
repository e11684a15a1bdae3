"""What was withdrawn since a backup stays withdrawn when the backup is restored: persons who were
forgotten, keys that were revoked, accounts that were disabled, passwords that were replaced.
Webhooks that were deleted, switched off or given another secret come back switched off.

Nobody keeps a list of forgotten persons: that would be remembering them. The present desk tells
it by who is missing. Users are deleted in one way only, so whoever is in the backup and not in the
desk that went on from it was forgotten since; and whoever came back since is newer there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from appliance.errors import ApplianceError
from appliance.services.access import OPERATOR, Principal
from appliance.services.users import Users
from appliance.storage.database import Database, Records
from appliance.storage.records import Account, ApiKey

PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """How many of each were withdrawn again."""

    persons: int
    keys: int
    accounts: int
    passwords: int
    webhooks: int = 0


@dataclass(frozen=True, slots=True)
class _Memory:
    """What one desk knows that matters here."""

    began: datetime
    latest_act: str | None
    users: dict[str, datetime]
    keys: dict[str, ApiKey]
    accounts: dict[str, tuple[Account, str]]
    webhooks: dict[str, str]
    """The sealed secrets of those that are switched on."""


async def withdraw_again(
    present: Database, restored: Database, *, by: Principal = OPERATOR
) -> Withdrawn | None:
    """Do to the restored desk what was done to the present one since the backup; None where the
    present one did not go on from it, or cannot be read.

    :raises StorageUnavailable: the restored database cannot be used.
    """
    then = await restored.read(_memory)
    try:
        await present.check()
        now = await present.read(lambda records: _continuation(records, then))
    except ApplianceError:
        return None
    if now is None:
        return None
    forgotten = [
        user_id
        for user_id, created_at in then.users.items()
        if now.users.get(user_id) != created_at
    ]
    users = Users(restored)
    for user_id in forgotten:
        await users.forget(by, user_id)

    def work(records: Records) -> Withdrawn:
        keys = [key for key in then.keys.values() if _is_revoked(key, now.keys.get(key.id))]
        changed = [pair for pair in now.accounts.values() if pair[0].id in then.accounts]
        disabled = [account for account, _ in changed if account.disabled_at is not None]
        replaced = [
            (account, password)
            for account, password in changed
            if account.password_changed_at > then.accounts[account.id][0].password_changed_at
        ]
        revoked = sum(records.keys.revoke(key.id) for key in keys)
        newly = 0
        for account in disabled:
            newly += then.accounts[account.id][0].disabled_at is None
            records.accounts.disable(account.id, account.disabled_at)
        for account, password in replaced:
            records.accounts.set_password(account.id, password)
        off = [each for each, secret in then.webhooks.items() if now.webhooks.get(each) != secret]
        for webhook_id in off:
            records.webhooks.update(webhook_id, active=False)
        return Withdrawn(len(forgotten), revoked, newly, len(replaced), len(off))

    return await restored.write(work)


def _is_revoked(then: ApiKey, now: ApiKey | None) -> bool:
    """Keys go with the person they are tied to, and in no other way."""
    return then.revoked_at is None and (now is None or now.revoked_at is not None)


def _continuation(records: Records, then: _Memory) -> _Memory | None:
    """The present desk's memory, if what the backup did last stands in its log still. A backup is
    an act itself, so that the log of a desk that was restored to an earlier one parts there."""
    if then.latest_act is None or not records.audit.has(then.latest_act):
        return None
    now = _memory(records)
    return now if now.began == then.began else None


def _memory(records: Records) -> _Memory:
    latest = records.audit.list(1)
    users: dict[str, datetime] = {}
    after: str | None = None
    while True:
        page = records.users.list(PAGE, after)
        users |= {user.id: user.created_at for user in page}
        if len(page) < PAGE:
            break
        after = page[-1].id
    return _Memory(
        began=records.answers.began_at(),
        latest_act=latest[0].id if latest else None,
        users=users,
        keys={key.id: key for key in records.keys.list()},
        accounts={
            account.id: (account, records.accounts.password_hash(account.username) or "")
            for account in records.accounts.list()
        },
        webhooks={
            webhook.id: endpoint.secret
            for webhook in records.webhooks.list()
            if webhook.active and (endpoint := records.webhooks.endpoint(webhook.id))
        },
    )

"""What was withdrawn since a backup is not brought back by restoring it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.operations.backup.making import Backup, make
from appliance.operations.backup.restoring import restore
from appliance.services.access import OPERATOR, Access
from appliance.services.accounts import Accounts
from appliance.services.answer_records import AnswerRecords
from appliance.services.passwords import Passwords
from appliance.services.users import Users
from appliance.services.withdrawn import Withdrawn
from appliance.settings import Settings
from appliance.storage import utc_now
from appliance.storage.database import Records
from tests.integration.backup_desk import QUESTIONS, opened, serving, settings_of
from tests.integration.test_answer_query import Desk

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = "sqlite"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")
    return settings_of(tmp_path, url)


@pytest.fixture
async def desk(settings: Settings, anyio_backend: str) -> AsyncIterator[Desk]:
    async with serving(settings) as desk:
        yield desk


async def users_of(settings: Settings) -> list[str]:
    async with opened(settings) as database:
        return [user.id for user in await database.read(lambda r: r.users.list(100))]


async def test_forgotten_persons_stay_forgotten(settings: Settings) -> None:
    async with serving(settings) as desk:
        for user in ("ada", "bob", "zoe"):
            await desk.ask(QUESTIONS[0], user=user)
        backup = await make(settings)
        await Users(desk.database).forget(OPERATOR, "bob")
        # Forgotten, and then there again as somebody new.
        await Users(desk.database).forget(OPERATOR, "zoe")
        await desk.ask(QUESTIONS[0], user="zoe")
    restored = await restore(settings, backup.path, replace=True)
    assert restored.withdrawn == Withdrawn(persons=2, keys=0, accounts=0, passwords=0)
    assert await users_of(settings) == ["ada"]
    async with opened(settings) as database:
        verdict = await AnswerRecords(database).verify()
        assert verdict.sound
        assert len(verdict.erased) == 2
        acts = await database.read(lambda r: [e.action for e in r.audit.list(3)])
        assert acts == ["db.restore", "user.forget", "user.forget"]


async def test_revoked_keys_disabled_accounts_and_old_passwords_stay_out(
    settings: Settings,
) -> None:
    async with serving(settings) as desk:
        access, accounts = Access(desk.database), Accounts(desk.database, Passwords())
        kept, gone = [await access.create_key("agent") for _ in range(2)]
        for name in ("grace", "linus"):
            await accounts.create(OPERATOR, name, "agent", "a first long passphrase")
        old = await desk.database.read(lambda r: r.accounts.password_hash("linus"))
        backup = await make(settings)
        await access.revoke_key(gone.id)
        await accounts.disable(OPERATOR, "grace")
        await accounts.set_password(OPERATOR, "linus", "another long passphrase")
        new = await desk.database.read(lambda r: r.accounts.password_hash("linus"))
    restored = await restore(settings, backup.path, replace=True)
    assert restored.withdrawn == Withdrawn(persons=0, keys=1, accounts=1, passwords=1)
    async with opened(settings) as database:
        keys = {key.id: key for key in await database.read(lambda r: r.keys.list())}
        assert keys[kept.id].revoked_at is None
        assert keys[gone.id].revoked_at is not None
        grace = await database.read(lambda r: r.accounts.named("grace"))
        assert grace is not None
        assert grace.disabled_at is not None
        now = await database.read(lambda r: r.accounts.password_hash("linus"))
        assert now == new != old


async def test_webhooks_that_were_deleted_or_whose_secret_leaked_come_back_switched_off(
    settings: Settings,
) -> None:
    async with serving(settings) as desk:

        def add(records: Records) -> list[str]:
            made = [
                records.webhooks.add(f"https://{name}.lan/hook", ["kb.updated"], f"of {name}")
                for name in ("kept", "deleted", "rotated", "off")
            ]
            return [webhook.id for webhook in made]

        kept, deleted, rotated, off = await desk.database.write(add)
        backup = await make(settings)

        def change(records: Records) -> None:
            records.webhooks.delete(deleted)
            records.webhooks.rotate(rotated, "another", utc_now())
            records.webhooks.update(off, active=False)

        await desk.database.write(change)
    restored = await restore(settings, backup.path, replace=True)
    assert restored.withdrawn is not None
    assert restored.withdrawn.webhooks == 3
    assert any("3 webhooks are switched off" in each.what for each in restored.advice)
    async with opened(settings) as database:
        webhooks = await database.read(lambda r: r.webhooks.list())
    assert [webhook.id for webhook in webhooks if webhook.active] == [kept]
    assert len(webhooks) == 4


async def two_backups(settings: Settings) -> tuple[Backup, Backup]:
    """A customer came between the two."""
    async with serving(settings) as desk:
        await desk.ask(QUESTIONS[0], user="ada")
        first = await make(settings)
        await desk.ask(QUESTIONS[0], user="bob")
        second = await make(settings)
    return first, second


async def test_who_is_missing_for_another_reason_is_not_forgotten(settings: Settings) -> None:
    """Back to the first backup, and then forward to the second: nobody was forgotten."""
    first, second = await two_backups(settings)
    assert (await restore(settings, first.path, replace=True)).withdrawn is not None
    assert await users_of(settings) == ["ada"]
    restored = await restore(settings, second.path, replace=True)
    assert restored.withdrawn is None
    assert await users_of(settings) == ["ada", "bob"]
    assert any("as they were before" in each.what for each in restored.advice)


async def test_everybody_signs_in_again(settings: Settings) -> None:
    async with serving(settings) as desk:
        account = await Accounts(desk.database, Passwords()).create(
            OPERATOR, "grace", "agent", "a first long passphrase"
        )
        await desk.database.write(
            lambda r: r.sessions.add("hash", account.created_at, account_id=account.id, key_id=None)
        )
        backup = await make(settings)
    await restore(settings, backup.path, replace=True)
    async with opened(settings) as database:
        assert await database.read(lambda r: r.sessions.by_hash("hash")) is None

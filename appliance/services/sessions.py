"""Signing in: by password or by key, to a session that this server keeps and can end.

A session's token is random and stored as a hash. What may be guessed at, passwords, is guessed at
slowly, and a failure looks the same whether the name, the password or the account was wrong.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NoReturn

from appliance.domain.policy import StaffRole
from appliance.domain.text import clean
from appliance.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    RateLimited,
    StorageUnavailable,
    Unauthenticated,
)
from appliance.logs import get_logger
from appliance.services.access import TOUCH_EVERY, Access, Principal, hashed
from appliance.services.limits import ADDRESS_FAILURES, ADDRESS_FAILURES_SECONDS, Limit, site
from appliance.services.passwords import Passwords, is_outdated, require_good
from appliance.storage.database import Database, Records
from appliance.storage.records import Account, StaffSession

log = get_logger()

LOCK_AFTER: Final = 5
"""Wrong passwords in a row that lock an account ..."""
LOCK_TIME: Final = timedelta(minutes=15)
"""... for this long, after which the count begins anew."""
FAILURE_SECONDS: Final = 0.5
"""How long a failed sign-in takes, however it failed: answers that differ in time tell what was
wrong."""

REFUSED = "The user name or the password is wrong, or the account is locked or disabled."
HINT = (
    f"After {LOCK_AFTER} failures an account is locked for {LOCK_TIME.seconds // 60} minutes; an "
    "administrator unlocks it with 'appliance accounts unlock'."
)
TOO_MANY = "Too many failed sign-ins from this address."


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who is signed in, for the pages. ``csrf_token`` goes with every request that changes
    something."""

    username: str | None
    name: str
    role: StaffRole
    csrf_token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session just opened; ``token`` is handed out this once and stored nowhere."""

    token: str
    who: SignedIn


class Sessions:
    """Opens, checks and ends sessions.

    :param idle: how long a session may lie unused.
    :param longest: how long it may last at all.
    """

    def __init__(
        self,
        database: Database,
        access: Access,
        passwords: Passwords,
        *,
        idle: timedelta,
        longest: timedelta,
    ) -> None:
        self._database = database
        self._access = access
        self._passwords = passwords
        self._idle = idle
        self._longest = longest
        self._failures = Limit("sign-in", ADDRESS_FAILURES, ADDRESS_FAILURES_SECONDS)

    async def sign_in(
        self, username: str, password: str, *, address: str, replaces: str | None = None
    ) -> NewSession:
        """Open a session by password.

        :param address: where the request came from, as the connection says.
        :param replaces: the token that the browser held before; it ends.
        :raises Unauthenticated: it was not right; what was wrong is not said.
        :raises RateLimited: too many failures from this address, or too many sign-ins at once.
        """
        started = time.monotonic()
        username = clean(username).lower()
        self._failures.check(site(address), TOO_MANY)
        stored = await self._database.read(lambda records: records.accounts.password_hash(username))
        right = await self._passwords.verify(stored, password)
        fresh = None
        if right and stored is not None and is_outdated(stored):
            fresh = await self._passwords.hash(password)
        token = _new_token()

        def work(records: Records) -> tuple[Account, StaffSession] | None:
            now = datetime.now(UTC)
            account = records.accounts.named(username, lock=True)
            if account is None or not account.may_sign_in(now):
                return None
            # Changed since it was verified: the old password opens nothing any more.
            if not right or records.accounts.password_hash(username) != stored:
                _note_failure(records, account, now)
                return None
            if fresh is not None:
                records.accounts.rehash(account.id, fresh)
            records.accounts.signed_in(account.id, now)
            records.audit.add(f"account:{username}", "session.open", username)
            return account, self._open(records, token, replaces, account_id=account.id)

        opened = await self._database.write(work)
        if opened is None:
            await self._refuse(started, address)
        account, session = opened
        return NewSession(token, _of_account(account, session, token))

    async def sign_in_by_key(
        self, key: str, *, address: str, replaces: str | None = None
    ) -> NewSession:
        """Open a session by the key of an agent or administrator. It is worth what the key is: less
        when that is revoked or expires.

        :raises Unauthenticated: the key is unknown, expired or revoked.
        :raises Forbidden: it is a customer's.
        :raises RateLimited: too many failures from this address.
        """
        started = time.monotonic()
        self._failures.check(site(address), TOO_MANY)
        try:
            principal = await self._access.authenticate(key.strip())
        except Unauthenticated:
            await self._refuse(started, address, "The key is unknown, expired or revoked.")
        if principal.role == "customer":
            raise Forbidden("Only keys of agents and administrators sign in.")
        key_id = principal.owner.removeprefix("key:")
        token = _new_token()

        def work(records: Records) -> StaffSession:
            records.audit.add(principal.owner, "session.open", key_id)
            return self._open(records, token, replaces, key_id=key_id)

        session = await self._database.write(work)
        _, who = await self._standing(token, session)
        return NewSession(token, who)

    async def resume(self, token: str) -> tuple[Principal, SignedIn]:
        """Whose session a token is, as that account or key stands now.

        :raises Unauthenticated: there is no such session any more.
        """
        session = await self._database.read(lambda records: records.sessions.by_hash(hashed(token)))
        now = datetime.now(UTC)
        if session is None or not self._is_alive(session, now):
            raise _ended()
        found = await self._standing(token, session)
        if now - session.last_seen_at > TOUCH_EVERY:
            try:
                await self._database.write(lambda records: records.sessions.touch(session.id, now))
            except StorageUnavailable as error:
                log.warning("session_not_touched", detail=error.detail)
        return found

    async def sign_out(self, token: str) -> None:
        """End a session."""
        await self._database.write(lambda records: records.sessions.end(hashed(token)))

    async def change_password(
        self, principal: Principal, token: str, present: str, new: str
    ) -> NewSession:
        """Change one's own password. Every session of the account ends; this browser gets a new
        one.

        :raises Conflict: the session was opened by a key.
        :raises Forbidden: the present password is wrong, or the account is locked by now.
        :raises InvalidInput: the new one is not good enough, or the same.
        """
        username = principal.owner.removeprefix("account:")
        if username == principal.owner or principal.via != "session":
            raise Conflict("Who signed in by a key has no password.")
        require_good(new, username)
        if new == present:
            raise InvalidInput("The new password is the present one.")
        stored = await self._database.read(lambda records: records.accounts.password_hash(username))
        right = await self._passwords.verify(stored, present)
        password_hash = await self._passwords.hash(new)
        fresh = _new_token()

        def work(records: Records) -> tuple[Account, StaffSession] | None:
            now = datetime.now(UTC)
            account = records.accounts.named(username, lock=True)
            if account is None or not account.may_sign_in(now):
                return None
            if not right or records.accounts.password_hash(username) != stored:
                _note_failure(records, account, now)
                return None
            records.accounts.set_password(account.id, password_hash)
            records.sessions.end_of(account.id)
            records.audit.add(principal.owner, "account.password", username)
            return account, self._open(records, fresh, token, account_id=account.id)

        changed = await self._database.write(work)
        if changed is None:
            raise Forbidden("The present password is wrong.", hint=HINT)
        return NewSession(fresh, _of_account(*changed, fresh))

    def _open(
        self,
        records: Records,
        token: str,
        replaces: str | None,
        *,
        account_id: str | None = None,
        key_id: str | None = None,
    ) -> StaffSession:
        now = datetime.now(UTC)
        records.sessions.tidy(now)
        if replaces is not None:
            records.sessions.end(hashed(replaces))
        return records.sessions.add(
            hashed(token), now + self._longest, account_id=account_id, key_id=key_id
        )

    def _is_alive(self, session: StaffSession, now: datetime) -> bool:
        return now < session.expires_at and now - session.last_seen_at < self._idle

    async def _standing(self, token: str, session: StaffSession) -> tuple[Principal, SignedIn]:
        """Whoever opened a session, as they stand now."""

        def work(records: Records) -> tuple[Principal, SignedIn] | None:
            if session.account_id is not None:
                account = records.accounts.get(session.account_id)
                if account is None or account.disabled_at is not None:
                    return None
                principal = Principal(account.role, f"account:{account.username}", via="session")
                return principal, _of_account(account, session, token)
            key = records.keys.get(session.key_id or "")
            if key is None or key.role == "customer" or not key.usable(datetime.now(UTC)):
                return None
            principal = Principal(key.role, f"key:{key.id}", via="session")
            ends = min(session.expires_at, key.expires_at or session.expires_at)
            return principal, SignedIn(None, key.name, key.role, csrf_token(token), ends)

        found = await self._database.read(work)
        if found is None:
            raise _ended()
        return found

    async def _refuse(self, started: float, address: str, detail: str = REFUSED) -> NoReturn:
        """Count a failure and say no, all failures after the same time."""
        with suppress(RateLimited):
            self._failures.take(site(address), TOO_MANY)
        log.warning("sign_in_failed", address=address)
        await asyncio.sleep(max(0.0, started + FAILURE_SECONDS - time.monotonic()))
        raise Unauthenticated(detail, hint=HINT)


def csrf_token(token: str) -> str:
    """What a page sends along to show that it could read an answer of this server."""
    return hmac.digest(token.encode(), b"csrf", "sha256").hex()


def _new_token() -> str:
    return secrets.token_urlsafe(32)


def _note_failure(records: Records, account: Account, now: datetime) -> None:
    failures = account.failures + 1
    if failures < LOCK_AFTER:
        records.accounts.failed(account.id, failures, None)
        return
    until = now + LOCK_TIME
    records.accounts.failed(account.id, 0, until)
    details = {"failures": failures, "until": until.isoformat(timespec="seconds")}
    records.audit.add("appliance", "account.lock", account.username, details)


def _of_account(account: Account, session: StaffSession, token: str) -> SignedIn:
    return SignedIn(
        account.username, account.name, account.role, csrf_token(token), session.expires_at
    )


def _ended() -> Unauthenticated:
    return Unauthenticated("The session has ended.", hint="Sign in again at /login.")

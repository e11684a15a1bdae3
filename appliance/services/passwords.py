"""Passwords: which are good enough, and how they are hashed. Argon2id, RFC 9106."""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from typing import Final, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from appliance.errors import InvalidInput, RateLimited

T = TypeVar("T")

MIN_CHARS: Final = 12
MAX_CHARS: Final = 128
"""Hashing costs the same for every length, but reading does not."""
MIN_DIFFERENT: Final = 5
"""Different characters: twelve times the same one is no password."""
GENERATED_BYTES: Final = 15
"""Entropy of a password that the appliance makes: 20 characters."""

AT_ONCE: Final = 2
"""Hashes under way. Each takes 64 MiB and a core for some 0.2 s, and anybody may ask for one."""
WAITING: Final = 32
"""Sign-ins that may wait for one before the next is refused."""
BUSY_SECONDS: Final = 2

_hasher = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1, type=Type.ID)
_NOBODYS: Final = _hasher.hash(secrets.token_urlsafe(GENERATED_BYTES))
"""What is verified where there is no such account, so that it takes as long."""


class Passwords:
    """Hashes and verifies without blocking the event loop, a bounded number at once."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """A hash with its parameters in it."""
        return await self._in_turn(_hasher.hash, normal(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether the password is that of the hash; False, as slowly, where there is none.

        :raises RateLimited: too many are being verified already.
        """
        given = normal(password)
        if len(given) > MAX_CHARS:
            given = ""
        right = await self._in_turn(_verified, stored or _NOBODYS, given)
        return right and stored is not None

    async def _in_turn(self, work: Callable[..., T], *arguments: str) -> T:
        if self._waiting >= WAITING:
            raise RateLimited("Too many people are signing in.", retry_after=BUSY_SECONDS)
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(work, *arguments)
        finally:
            self._waiting -= 1


def normal(password: str) -> str:
    """The same text for the same keys, whichever keyboard composed them.

    :raises InvalidInput: it cannot be written as UTF-8.
    """
    try:
        password.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("The password holds what is no character.") from error
    return unicodedata.normalize("NFKC", password)


def is_outdated(stored: str) -> bool:
    """Whether a hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(stored)


def generate() -> str:
    """A password that nobody thought of."""
    return secrets.token_urlsafe(GENERATED_BYTES)


def require_good(password: str, username: str) -> None:
    """:raises InvalidInput: it is too short, too long or too easily guessed."""
    password = normal(password)
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        raise InvalidInput(f"A password has {MIN_CHARS} to {MAX_CHARS} characters.")
    if len(set(password)) < MIN_DIFFERENT:
        raise InvalidInput(f"A password has at least {MIN_DIFFERENT} different characters.")
    if username.casefold() in password.casefold():
        raise InvalidInput("A password does not hold the user name.")


def _verified(stored: str, password: str) -> bool:
    try:
        return _hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False

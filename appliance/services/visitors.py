"""Visitors of the chat page: a signed cookie in place of a key."""

from __future__ import annotations

import secrets

from itsdangerous import BadSignature, TimestampSigner

from appliance.errors import Unauthenticated
from appliance.services.access import Principal

SESSION_SECONDS = 90 * 24 * 3600
"""How long a visitor finds their conversations again."""


class Visitors:
    """Issues and checks visitor sessions. Nothing is stored: the signature is the session."""

    def __init__(self, secret: bytes) -> None:
        self._signer = TimestampSigner(secret, salt="visitor-session")

    def issue(self) -> str:
        """A token for a new visitor."""
        return self._signer.sign(f"visitor-{secrets.token_hex(12)}").decode()

    def principal(self, token: str) -> Principal:
        """The visitor of a token.

        :raises Unauthenticated: the token is forged, damaged or too old.
        """
        try:
            visitor = self._signer.unsign(token, max_age=SESSION_SECONDS).decode()
        except BadSignature as error:
            raise Unauthenticated(
                "The visitor session is not valid any more.", hint="Reload the chat page."
            ) from error
        return Principal("customer", f"user:{visitor}", visitor, via="visitor")

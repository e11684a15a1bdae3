"""Secrets that receivers verify webhooks with, made so that the database alone holds none.

A secret is derived from a key file of this appliance and a random text; the database keeps the
text. Whoever reads a backup or the tables cannot sign, and there is nothing to decrypt. Whoever
restores a database elsewhere needs the key file too, else receivers know another secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final

PREFIX: Final = "whsec_"
"""Standard Webhooks' mark of a symmetric secret; makes a leaked one recognisable."""
_USE: Final = b"appliance webhook secret 1:"
"""Keeps these secrets apart from whatever else is derived from the key one day."""
_SEED_BYTES: Final = 16


class WebhookSecrets:
    """Makes and opens secrets.

    :param key: at least 32 random bytes, the same in every process of the appliance.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def new(self) -> str:
        """The stored form of a fresh secret."""
        return secrets.token_hex(_SEED_BYTES)

    def key(self, stored: str) -> bytes:
        """The 32 bytes to sign with."""
        return hmac.digest(self._key, _USE + stored.encode(), hashlib.sha256)

    def shown(self, stored: str) -> str:
        """The secret as receivers are given it."""
        return PREFIX + base64.b64encode(self.key(stored)).decode()

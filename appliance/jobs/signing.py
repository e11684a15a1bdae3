"""Standard Webhooks 1.0.0: the headers by which a receiver knows who sent a body, and when."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from datetime import datetime

SCHEME = "v1"


def headers(keys: Iterable[bytes], event_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """What goes with a body. While a secret rotates there is a key for each live one, and a
    receiver needs only one signature to be right.

    :param at: the moment of this attempt, aware: receivers refuse what is minutes old.
    """
    timestamp = str(int(at.timestamp()))
    signatures = [_signature(key, event_id, timestamp, body) for key in keys]
    return {
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signatures),
    }


def _signature(key: bytes, event_id: str, timestamp: str, body: bytes) -> str:
    signed = b".".join((event_id.encode(), timestamp.encode(), body))
    digest = hmac.digest(key, signed, hashlib.sha256)
    return f"{SCHEME},{base64.b64encode(digest).decode()}"

"""A request that may come twice and must be carried out once: what its ``Idempotency-Key`` says."""

from __future__ import annotations

import hashlib
import uuid
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Once:
    """A key of one principal and the request it belongs to.

    ``id`` is a digest of principal and key, so that nobody's key meets another's; ``fingerprint``
    one of method, address and body. ``status`` is what success will be answered with.
    """

    id: str
    fingerprint: str
    status: int = 200


def once(owner: str, key: str, *request: bytes, status: int = 200) -> Once:
    """The ``Once`` of a key; ``request`` are the parts that make a request what it is."""
    # The fingerprint is salted with the key, which is stored nowhere: bodies may hold passwords,
    # and this digest is a fast one.
    return Once(_digest(owner.encode(), key.encode()), _digest(key.encode(), *request), status)


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


@dataclass(slots=True)
class Claim:
    """A request being carried out; ``kept`` once its answer is stored.

    ``holder`` is whoever carries it out, this once: a request that outlives its lease may have been
    taken over, by another process or by this one, and then keeps nothing.
    """

    once: Once
    holder: str = field(default_factory=lambda: uuid.uuid4().hex)
    kept: bool = False


CURRENT: ContextVar[Claim | None] = ContextVar("claim", default=None)
"""The claim of the request that the present task carries out; see ``Database.answer``."""

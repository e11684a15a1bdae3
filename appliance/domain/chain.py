"""Records sealed one upon the other, so that a changed, missing, inserted or moved one shows.

A record has an open part and a personal part. Its digest covers the open part, the digest of the
personal part and the digest of the record before. The personal digest is salted: once text and
salt are erased nobody can try texts against it, and every other digest still holds.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

GENESIS: Final = "0" * 64
"""What the first record stands on."""
SALT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Sealed:
    """One record. ``content`` is the open part and ``personal`` the other, both as the canonical
    JSON that was digested; an erased record has neither ``personal`` nor ``salt``."""

    seq: int
    message_id: str
    conversation_id: str
    content: str
    personal: str | None
    salt: str | None
    personal_digest: str
    previous: str
    digest: str

    @property
    def erased(self) -> bool:
        """Whether the personal part is gone."""
        return self.personal is None and self.salt is None


@dataclass(frozen=True, slots=True)
class Head:
    """Number and digest of the latest record; 0 and ``GENESIS`` before the first."""

    seq: int
    digest: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.digest}"


Problem = Literal["changed", "moved", "missing", "resealed", "head", "message", "unrecorded"]
"""``changed``: not what was sealed. ``moved``: sealed under another number. ``missing``: a number
without a record. ``resealed``: whole in itself, but what came after stood on another digest.
``head``: the chain's end is not where it was noted. ``message``: the conversation says something
else. ``unrecorded``: an answer without a record."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with which record; None where it is an answer that has no record."""

    record: int | None
    problem: Problem
    detail: str


def canonical(document: Any) -> str:
    """The one way to write a document: keys in order, no spaces. NaN raises ValueError."""
    return json.dumps(
        document, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )


def seal(
    head: Head,
    message_id: str,
    conversation_id: str,
    content: Mapping[str, Any],
    personal: Mapping[str, Any],
) -> Sealed:
    """The record that follows ``head``."""
    salt = secrets.token_hex(SALT_BYTES)
    seq = head.seq + 1
    ids = {"record": seq, "message_id": message_id, "conversation_id": conversation_id}
    written, private = canonical({**content, **ids}), canonical(personal)
    personal_digest = digest_personal(salt, private)
    return Sealed(
        seq=seq,
        message_id=message_id,
        conversation_id=conversation_id,
        content=written,
        personal=private,
        salt=salt,
        personal_digest=personal_digest,
        previous=head.digest,
        digest=digest(head.digest, personal_digest, written),
    )


def digest_personal(salt: str, personal: str) -> str:
    """SHA-256, in hex, of the salt and the personal part."""
    return hashlib.sha256(f"{salt}{personal}".encode()).hexdigest()


def digest(previous: str, personal_digest: str, content: str) -> str:
    """SHA-256, in hex, that the next record stands on. The first two are of fixed length, so that
    no other three make the same text."""
    return hashlib.sha256(f"{previous}\n{personal_digest}\n{content}".encode()).hexdigest()


def examine(record: Sealed) -> Finding | None:
    """What is wrong with a record by itself, wherever it stands."""
    if digest(record.previous, record.personal_digest, record.content) != record.digest:
        return Finding(record.seq, "changed", "It is not what was sealed.")
    if not record.erased:
        salt, personal = record.salt or "", record.personal or ""
        if digest_personal(salt, personal) != record.personal_digest:
            return Finding(record.seq, "changed", "Its personal part is not what was sealed.")
    ids = _ids(record)
    if ids != (record.message_id, record.conversation_id):
        return Finding(record.seq, "changed", "It was sealed for another message.")
    return None


def walk(
    records: Iterable[Sealed], head: Head, *, first: int = 1, last: int | None = None
) -> Iterator[Finding]:
    """Compare records, in order of their numbers, with their own digests and with each other.

    :param first: the number to begin with; before any but 1 the link is not known.
    :param last: the number to end with; None goes to the end, which has to be ``head``.
    """
    before = Head(0, GENESIS) if first == 1 else None
    expected, shift, sound = first, 0, True
    for record in records:
        if record.seq > expected:
            yield _missing(expected, record.seq - 1)
            before = None
        number = _number(record)
        wrong = examine(record) or _moved(record, number, shift)
        if wrong is not None:
            yield wrong
        elif before is not None and sound and record.previous != before.digest:
            yield _resealed(before.seq or record.seq, f"record {record.seq}")
        shift = record.seq - (number or record.seq)
        before, expected, sound = Head(record.seq, record.digest), record.seq + 1, wrong is None
    if last is None or last > head.seq:
        yield from _ending(before or Head(0, GENESIS), expected, head, sound=sound)
    elif expected <= last:
        yield _missing(expected, last)


def _ending(reached: Head, expected: int, head: Head, *, sound: bool) -> Iterator[Finding]:
    if expected <= head.seq:
        yield _missing(expected, head.seq)
    elif reached.seq > head.seq:
        yield Finding(head.seq + 1, "head", f"The chain was noted to end with record {head.seq}.")
    elif reached.digest != head.digest and sound:
        yield _resealed(reached.seq, "the chain's head")


def _missing(first: int, last: int) -> Finding:
    which = "It is" if first == last else f"Records {first} to {last} are"
    return Finding(first, "missing", f"{which} not there any more.")


def _resealed(record: int, later: str) -> Finding:
    return Finding(record, "resealed", f"It was sealed anew: {later} stands on another digest.")


def _moved(record: Sealed, number: int | None, shift: int) -> Finding | None:
    """A record that stands elsewhere than it was written; told once for all that moved along."""
    if number is None or record.seq - number in (0, shift):
        return None
    return Finding(record.seq, "moved", f"It was written as record {number}.")


def _number(record: Sealed) -> int | None:
    number = _document(record).get("record")
    return number if isinstance(number, int) else None


def _ids(record: Sealed) -> tuple[Any, Any]:
    document = _document(record)
    return document.get("message_id"), document.get("conversation_id")


def _document(record: Sealed) -> dict[str, Any]:
    try:
        document = json.loads(record.content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}

"""Column types that hold the same value in a STRICT table of SQLite and in PostgreSQL.

STRICT tables know INTEGER, REAL, TEXT and BLOB only, so times, truth values and documents need a
rule for how they are written there. On PostgreSQL each uses the native type.
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BOOLEAN, TIMESTAMP, Dialect, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine


def new_id() -> str:
    """A fresh id: 32 hexadecimal digits, unguessable, good in a URL."""
    return uuid.uuid4().hex


def utc_now() -> datetime:
    """The present moment, aware, in UTC, at the microsecond both databases keep."""
    return datetime.now(UTC)


def to_json(value: Any) -> str:
    """Compact JSON. NaN and infinity raise ValueError: they are no JSON, and JSONB refuses them."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment, read back in UTC; a naive one raises ValueError, since nobody can tell when
    it is.

    SQLite holds ISO 8601 text of fixed width, so that comparing text compares time.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        native = dialect.name == "postgresql"
        return dialect.type_descriptor(TIMESTAMP(timezone=True) if native else Text())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError("A stored time needs a time zone.")
        moment = value.astimezone(UTC)
        return moment if dialect.name == "postgresql" else moment.isoformat(timespec="microseconds")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return moment.astimezone(UTC)


class Flag(TypeDecorator[bool]):
    """True or false: BOOLEAN, or an INTEGER whose table checks that it is 0 or 1."""

    impl = Integer
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(BOOLEAN() if dialect.name == "postgresql" else Integer())

    def process_bind_param(self, value: bool | None, dialect: Dialect) -> Any:
        return value if value is None or dialect.name == "postgresql" else int(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> bool | None:
        return None if value is None else bool(value)


class Json(TypeDecorator[Any]):
    """A document of JSON's own types, stored whole: JSONB or TEXT. ``None`` is SQL's NULL, not
    JSON's.

    Nothing queries inside it; what is searched or counted has a column of its own.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        native = dialect.name == "postgresql"
        return dialect.type_descriptor(JSONB(none_as_null=True) if native else Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return value if value is None or dialect.name == "postgresql" else to_json(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return value if value is None or dialect.name == "postgresql" else json.loads(value)

"""What a driver's error means to us: wait and try again, an outage, a conflict, or a defect of
ours."""

from __future__ import annotations

import sqlite3
from typing import NoReturn

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError

from appliance.errors import (
    ApplianceError,
    Conflict,
    InvalidInput,
    StorageFull,
    StorageUnavailable,
)

NOT_MIGRATED = "The database is not migrated."
UPGRADE_HINT = "Run 'appliance db upgrade'."
_FILE_HINT = (
    "Check the file's folder and its permissions; 'appliance db upgrade' creates a new database."
)
_DAMAGE_HINT = "Keep a copy of the file, then restore a backup with 'appliance db restore'."
_SERVER_HINT = "Check that PostgreSQL runs and that database_url is right."

_SQLITE = {
    sqlite3.SQLITE_BUSY: (
        "Another process kept the database locked.",
        "Look for a long backup or upgrade.",
    ),
    sqlite3.SQLITE_CANTOPEN: ("The database file cannot be opened.", _FILE_HINT),
    sqlite3.SQLITE_READONLY: ("The database cannot be written here.", _FILE_HINT),
    sqlite3.SQLITE_PERM: ("The database file cannot be opened.", _FILE_HINT),
    sqlite3.SQLITE_IOERR: (
        "The disk failed while the database used it.",
        "See the kernel's log for the disk.",
    ),
    sqlite3.SQLITE_NOTADB: ("The database file is not an SQLite database.", _DAMAGE_HINT),
    sqlite3.SQLITE_CORRUPT: ("The database file is damaged.", _DAMAGE_HINT),
}

_POSTGRESQL = {
    "42P01": (NOT_MIGRATED, UPGRADE_HINT),
    "42703": (NOT_MIGRATED, UPGRADE_HINT),
    "25006": ("The database cannot be written here.", "Point database_url at the primary server."),
    "42501": (
        "PostgreSQL does not let this user use the tables.",
        "Grant the user its own database.",
    ),
    "55P03": (
        "Another process kept a row locked.",
        "Look for a long transaction in pg_stat_activity.",
    ),
}

_PG_DISK_FULL = "53100"
_PASSING_SQLSTATES = frozenset({"40001", "40P01", "23503"})
"""Serialization failure, deadlock, and a parent row that went while a child was added: the next try
sees that it is gone."""


def passing(error: DBAPIError) -> bool:
    """True when nothing was committed and the very same transaction may succeed in a moment.

    A connection lost while committing is not among these: whether that commit happened is unknown.
    """
    return _sqlite_code(error) == sqlite3.SQLITE_BUSY or _sqlstate(error) in _PASSING_SQLSTATES


def raise_translated(error: DBAPIError) -> NoReturn:
    """Raise one of our errors instead, or the same one when it can only be a defect in a query.

    An outage keeps the driver's words as its cause. The others lose them, because PostgreSQL quotes
    the row or the value, and errors are logged.
    """
    if isinstance(error, IntegrityError):
        raise Conflict(f"The change does not fit what is stored{_rule(error)}.") from None
    if isinstance(error, DataError):
        raise InvalidInput("The input holds a value that the database cannot store.") from None
    outage = _outage(error)
    if outage is None:
        raise error
    raise outage from error


def _outage(error: DBAPIError) -> ApplianceError | None:
    if isinstance(error.orig, sqlite3.Error):
        code = _sqlite_code(error)
        if code == sqlite3.SQLITE_FULL:
            return StorageFull()
        if code in _SQLITE:
            detail, hint = _SQLITE[code]
            return StorageUnavailable(detail, hint=hint)
        missing = str(error.orig).startswith(("no such table", "no such column"))
        return StorageUnavailable(NOT_MIGRATED, hint=UPGRADE_HINT) if missing else None
    state = _sqlstate(error)
    if state == _PG_DISK_FULL:
        return StorageFull("The database server's disk is full.")
    if state in _POSTGRESQL:
        detail, hint = _POSTGRESQL[state]
        return StorageUnavailable(detail, hint=hint)
    if isinstance(error, OperationalError | InterfaceError):
        return StorageUnavailable(
            "The database server does not answer as it should.", hint=_SERVER_HINT
        )
    return None


def _sqlite_code(error: DBAPIError) -> int:
    """SQLite's primary result code: the low byte, without the extended detail; 0 for other
    errors."""
    return int(getattr(error.orig, "sqlite_errorcode", 0)) & 0xFF


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def _rule(error: DBAPIError) -> str:
    """The name of the broken rule, as far as the driver tells it."""
    if isinstance(error.orig, sqlite3.Error):
        name = str(error.orig).partition(" failed: ")[2]
    else:
        name = getattr(getattr(error.orig, "diag", None), "constraint_name", None) or ""
    return f" ({name})" if name else ""

"""What all repositories share: a connection inside a given transaction, and rows turned into
records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Executable, Table
from sqlalchemy.dialects import postgresql, sqlite

R = TypeVar("R")


def columns_for(record: Any, table: Table) -> list[ColumnElement[Any]]:
    """The table's columns that the record has fields for."""
    return [table.c[field.name] for field in fields(record)]


class Repository:
    """Queries on one noun. Works inside the unit of work's transaction; never commits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _first(self, record: Callable[..., R], statement: Executable) -> R | None:
        row = self._connection.execute(statement).first()
        return None if row is None else record(**row._asdict())

    def _one(self, record: Callable[..., R], statement: Executable) -> R:
        """For statements that return exactly one row, such as an insert with RETURNING."""
        return record(**self._connection.execute(statement).one()._asdict())

    def _all(self, record: Callable[..., R], statement: Executable) -> list[R]:
        return [record(**row._asdict()) for row in self._connection.execute(statement)]

    def _insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An insert that knows ON CONFLICT, which both databases spell the same way."""
        native = self._connection.dialect.name == "postgresql"
        return postgresql.insert(table) if native else sqlite.insert(table)

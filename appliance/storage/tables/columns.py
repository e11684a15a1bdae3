"""What tables are made of: the metadata that holds them, columns and rules."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Column, ForeignKey, Integer, MetaData, Text

from appliance.domain import policy
from appliance.storage.types import UtcDateTime

ID_CHARS = policy.ID_MAX_CHARS
WORD_CHARS = 64
LINE_CHARS = 500
CONTENT_CHARS = 65_536
"""Longest message or article; well above what a customer may send, for agents and imported
documents."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def at_most(**limits: int) -> list[CheckConstraint]:
    """Longest texts, in characters, by column."""
    return [
        CheckConstraint(f"length({name}) <= {limit}", name=f"{name}_length")
        for name, limit in limits.items()
    ]


def one_of(name: str, values: tuple[str, ...]) -> CheckConstraint:
    """One of these words, or nothing where the column may be empty."""
    known = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{name} IN ({known})", name=f"{name}_known")


def truth(name: str) -> CheckConstraint:
    """TRUE and FALSE are 1 and 0 to SQLite, so one text serves both databases."""
    return CheckConstraint(f"{name} IN (TRUE, FALSE)", name=f"{name}_truth")


def urgency() -> CheckConstraint:
    """A priority is one of those that the policy knows."""
    return CheckConstraint(
        f"priority BETWEEN {policy.PRIORITY_MIN} AND {policy.PRIORITY_MAX}", name="priority_range"
    )


def text(name: str, *, null: bool = False) -> Column[str]:
    """Characters; how many, the table says with ``at_most``."""
    return Column(name, Text, nullable=null)


def time(name: str, *, null: bool = False) -> Column[Any]:
    """A moment, in UTC."""
    return Column(name, UtcDateTime, nullable=null)


def count(name: str, *, null: bool = False) -> Column[int]:
    """A whole number."""
    return Column(name, Integer, nullable=null)


def key() -> Column[str]:
    """The ``id`` that a row is known by."""
    return Column("id", Text, primary_key=True)


def parent(name: str, target: str, *, on_delete: str | None, null: bool = False) -> Column[str]:
    """The row of another table that this one belongs to.

    :param on_delete: what becomes of this row with that one, in SQL; None keeps both.
    """
    return Column(name, Text, ForeignKey(target, ondelete=on_delete), nullable=null)

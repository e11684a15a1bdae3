"""Column types without a server: what is written, what is refused, and that text keeps time's
order."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Connection, MetaData, Table, create_engine, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import StatementError

from appliance.storage.types import Flag, Json, UtcDateTime, new_id, to_json, utc_now

SQLITE, POSTGRESQL = sqlite.dialect(), postgresql.dialect()  # type: ignore[no-untyped-call]

offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
# Within what every offset can express in UTC; hypothesis wants the bounds without a zone.
EARLIEST, LATEST = datetime(1970, 1, 2), datetime(9999, 12, 30)  # noqa: DTZ001
moments = st.datetimes(EARLIEST, LATEST, timezones=offsets)

things = Table(
    "things",
    MetaData(),
    Column("moment", UtcDateTime),
    Column("flag", Flag),
    Column("document", Json),
    sqlite_strict=True,
)


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        things.create(connection)
        yield connection
    engine.dispose()


@given(moments)
def test_a_moment_comes_back_from_text_in_utc(moment: datetime) -> None:
    text = UtcDateTime().process_bind_param(moment, SQLITE)
    back = UtcDateTime().process_result_value(text, SQLITE)
    assert back == moment
    assert back.tzinfo is UTC


@given(moments, moments)
def test_text_sorts_like_time(one: datetime, other: datetime) -> None:
    first, second = (UtcDateTime().process_bind_param(moment, SQLITE) for moment in (one, other))
    assert (first < second) == (one < other)


def test_postgresql_gets_and_gives_the_native_type() -> None:
    moment = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert UtcDateTime().process_bind_param(moment, POSTGRESQL) == moment
    back = UtcDateTime().process_result_value(moment, POSTGRESQL)
    assert back == moment
    assert back.tzinfo is UTC
    assert Flag().process_bind_param(True, POSTGRESQL) is True
    assert Json().process_bind_param({"a": 1}, POSTGRESQL) == {"a": 1}


@pytest.mark.parametrize("dialect", [SQLITE, POSTGRESQL], ids=["sqlite", "postgresql"])
def test_a_time_without_zone_is_refused(dialect: Any) -> None:
    with pytest.raises(ValueError, match="time zone"):
        UtcDateTime().process_bind_param(EARLIEST, dialect)


@pytest.mark.parametrize(
    "value",
    [
        {
            "moment": datetime(2026, 3, 1, 9, 30, 0, 1, tzinfo=UTC),
            "flag": True,
            "document": {"a": [1, 2.5, None]},
        },
        {"moment": None, "flag": None, "document": None},
        {"moment": datetime(2026, 3, 1, tzinfo=UTC), "flag": False, "document": []},
        {"moment": datetime(2026, 3, 1, tzinfo=UTC), "flag": False, "document": "Grüße, 世界 🎧"},
    ],
)
def test_values_come_back_from_a_strict_table(
    connection: Connection, value: dict[str, Any]
) -> None:
    connection.execute(insert(things).values(**value))
    assert connection.execute(select(things)).one()._asdict() == value


def test_nothing_is_null_in_sql_too(connection: Connection) -> None:
    connection.execute(insert(things).values(moment=None, flag=None, document=None))
    stored = connection.exec_driver_sql(
        "SELECT typeof(moment), typeof(flag), typeof(document) FROM things"
    )
    assert tuple(stored.one()) == ("null", "null", "null")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_what_is_no_json_is_refused(connection: Connection, value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(value)
    with pytest.raises(StatementError, match="not JSON compliant"):
        connection.execute(insert(things).values(document=value))


def test_ids_are_fresh_and_plain() -> None:
    ids = {new_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(len(fresh) == 32 and int(fresh, 16) >= 0 for fresh in ids)


def test_now_is_aware() -> None:
    assert utc_now().tzinfo is UTC

"""Users, keys, feedback, events and counts on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from appliance.errors import NotFound
from appliance.storage import Database, Records, utc_now
from appliance.storage.records import User
from appliance.storage.users import UNCHANGED

pytestmark = pytest.mark.anyio


async def test_a_user_is_made_once(database: Database) -> None:
    assert await database.read(lambda records: records.users.get("ada")) is None
    made = await database.write(lambda records: records.users.ensure("ada"))
    assert (made.id, made.name, made.email, made.vip) == ("ada", None, None, False)
    assert await database.write(lambda records: records.users.ensure("ada")) == made
    assert await database.read(lambda records: records.users.get("ada")) == made


async def test_a_user_changes_in_the_fields_given(database: Database) -> None:
    made = await database.write(lambda records: records.users.ensure("ada"))

    async def update(**changes: object) -> User:
        return await database.write(lambda records: records.users.update("ada", **changes))  # type: ignore[arg-type]

    first = await update(name="Ada", vip=True)
    assert (first.name, first.email, first.vip, first.created_at) == (
        "Ada",
        None,
        True,
        made.created_at,
    )
    assert first.updated_at > made.updated_at
    second = await update(name=UNCHANGED, email="ada@desk.lan")
    assert (second.name, second.email, second.vip) == ("Ada", "ada@desk.lan", True)
    third = await update(name=None, vip=False)
    assert (third.name, third.email, third.vip) == (None, "ada@desk.lan", False)
    with pytest.raises(NotFound):
        await database.write(lambda records: records.users.update("nobody", vip=True))


async def test_users_are_listed_in_pages(database: Database) -> None:
    await database.write(
        lambda records: [records.users.ensure(name) for name in ("c", "a", "d", "b")]
    )

    async def ids(limit: int, after: str | None = None) -> list[str]:
        return [user.id for user in await database.read(lambda r: r.users.list(limit, after))]

    assert await ids(3) == ["a", "b", "c"]
    assert await ids(3, "c") == ["d"]
    assert await ids(3, "d") == []


async def test_a_key_is_found_by_its_hash(database: Database) -> None:
    expires = datetime(2027, 1, 1, tzinfo=UTC)
    made = await database.write(
        lambda records: records.keys.add("web shop", "customer", "ada", "hash", expires)
    )
    assert (made.name, made.role, made.user_id, made.expires_at) == (
        "web shop",
        "customer",
        "ada",
        expires,
    )
    assert (made.last_used_at, made.revoked_at) == (None, None)
    assert await database.read(lambda records: records.keys.by_hash("hash")) == made
    assert await database.read(lambda records: records.keys.by_hash("hush")) is None


async def test_a_key_is_usable_until_it_expires_or_is_revoked(database: Database) -> None:
    expires = datetime(2027, 1, 1, tzinfo=UTC)

    def add(records: Records) -> list[str]:
        return [
            records.keys.add("endless", "admin", None, "1").id,
            records.keys.add("limited", "agent", None, "2", expires).id,
            records.keys.add("revoked", "agent", None, "3", expires).id,
        ]

    ids = await database.write(add)
    assert await database.write(lambda records: records.keys.revoke(ids[2]))
    assert not await database.write(lambda records: records.keys.revoke(ids[2]))
    assert not await database.write(lambda records: records.keys.revoke("nothing"))
    keys = await database.read(lambda records: records.keys.list())
    assert [key.id for key in keys] == ids
    before = expires - timedelta(microseconds=1)
    assert [key.usable(before) for key in keys] == [True, True, False]
    assert [key.usable(expires) for key in keys] == [True, False, False]


async def test_a_keys_last_use_never_moves_back(database: Database) -> None:
    key = await database.write(lambda records: records.keys.add("desk", "agent", None, "hash"))
    now = utc_now()

    async def touch(when: datetime) -> None:
        await database.write(lambda records: records.keys.touch(key.id, when))

    for when in (now, now + timedelta(seconds=5), now - timedelta(days=1)):
        await touch(when)
    (used,) = await database.read(lambda records: records.keys.list())
    assert used.last_used_at == now + timedelta(seconds=5)


async def test_feedback_is_the_latest_opinion_on_each_message(database: Database) -> None:
    def talk(records: Records) -> tuple[str, str, str]:
        records.users.ensure("ada")
        conversation = records.conversations.create("ada", "key:1", "Help")
        answers = [
            records.messages.add(conversation.id, "assistant", "Hi", "sent").id for _ in range(2)
        ]
        return conversation.id, answers[0], answers[1]

    conversation, first, second = await database.write(talk)
    assert (
        await database.read(lambda records: records.feedback.for_conversation(conversation)) == {}
    )
    early = await database.write(lambda r: r.feedback.put(first, conversation, "down", "Wrong"))
    late = await database.write(lambda r: r.feedback.put(first, conversation, "up"))
    other = await database.write(lambda r: r.feedback.put(second, conversation, "down", "Too long"))
    assert (late.id, late.created_at) == (early.id, early.created_at)
    assert (late.rating, late.comment) == ("up", None)
    assert late.updated_at > early.updated_at
    found = await database.read(lambda records: records.feedback.for_conversation(conversation))
    assert found == {first: late, second: other}


async def test_counts_of_an_empty_desk(database: Database) -> None:
    assert await database.read(lambda records: records.stats.counts()) == {
        "queries": 0,
        "by_category": {},
        "by_sentiment": {},
        "by_outcome": {},
        "by_mode": {},
        "escalated": 0,
        "feedback": {"up": 0, "down": 0},
        "conversations": {"open": 0, "escalated": 0, "resolved": 0},
    }


async def test_counts_of_a_busy_desk(database: Database) -> None:
    def work(records: Records) -> None:
        records.users.ensure("ada")
        records.events.add("started")
        for number in range(3):
            conversation = records.conversations.create("ada", "key:1", "Help")
            for escalated in (False, number == 0):
                question = records.messages.add(conversation.id, "customer", "Help", "answered")
                answer = records.messages.add(
                    conversation.id,
                    "assistant",
                    "Here",
                    "sent",
                    reply_to=question.id,
                    category="Billing" if number else "Technical",
                    sentiment="Angry" if escalated else "Neutral",
                    priority=3,
                    outcome="handoff" if escalated else "answered",
                    mode="none" if escalated else "quoted",
                    escalated=escalated,
                )
                records.events.add(
                    "answered", conversation_id=conversation.id, user_id="ada", data={"n": 1}
                )
            records.messages.add(conversation.id, "agent", "A person here", "sent")
            records.feedback.put(answer.id, conversation.id, "down" if number else "up")
        records.conversations.update(conversation.id, status="resolved")

    await database.write(work)
    assert await database.read(lambda records: records.stats.counts()) == {
        "queries": 6,
        "by_category": {"Technical": 2, "Billing": 4},
        "by_sentiment": {"Neutral": 5, "Angry": 1},
        "by_outcome": {"answered": 5, "handoff": 1},
        "by_mode": {"quoted": 5, "none": 1},
        "escalated": 1,
        "feedback": {"up": 1, "down": 2},
        "conversations": {"open": 2, "escalated": 0, "resolved": 1},
    }

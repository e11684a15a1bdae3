"""Conversations and their messages on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from appliance.errors import Conflict, NotFound
from appliance.storage import Database, Records, utc_now
from appliance.storage.records import Conversation, ConversationStatus

pytestmark = pytest.mark.anyio


def start(
    records: Records, *, user: str = "ada", owner: str = "key:1", title: str = "Help"
) -> Conversation:
    records.users.ensure(user)
    return records.conversations.create(user, owner, title)


async def test_a_new_conversation_is_open_and_about_nothing_yet(database: Database) -> None:
    made = await database.write(start)
    assert made == await database.read(lambda records: records.conversations.get(made.id))
    assert (made.user_id, made.owner, made.title, made.status) == ("ada", "key:1", "Help", "open")
    assert (made.category, made.priority, made.attempts, made.case_reference) == (
        None,
        None,
        0,
        None,
    )
    assert made.created_at == made.updated_at
    assert await database.read(lambda records: records.conversations.get("nothing")) is None


async def test_an_update_changes_the_fields_given_and_the_time(database: Database) -> None:
    made = await database.write(start)
    changed = await database.write(
        lambda records: records.conversations.update(
            made.id,
            status="escalated",
            category="Billing",
            priority=8,
            topic_article_id="7",
            topic_question="Where is my money?",
            attempts=3,
            escalation_reason="attempts",
            case_reference="CASE-1",
        )
    )
    assert (changed.status, changed.category, changed.priority) == ("escalated", "Billing", 8)
    assert (changed.topic_article_id, changed.topic_question, changed.attempts) == (
        "7",
        "Where is my money?",
        3,
    )
    assert (changed.escalation_reason, changed.case_reference) == ("attempts", "CASE-1")
    assert (changed.title, changed.created_at) == (made.title, made.created_at)
    assert changed.updated_at > made.updated_at

    def forget(records: Records) -> Conversation:
        return records.conversations.update(made.id, topic_article_id=None, topic_question=None)

    forgotten = await database.write(forget)
    assert (forgotten.topic_article_id, forgotten.attempts) == (None, 3)


async def test_what_does_not_exist_cannot_change(database: Database) -> None:
    with pytest.raises(NotFound):
        await database.write(lambda records: records.conversations.update("nothing", attempts=1))
    with pytest.raises(NotFound):
        await database.write(
            lambda records: records.messages.add("nothing", "customer", "Hi", "received")
        )
    with pytest.raises(NotFound):
        await database.write(lambda records: records.messages.set_state("nothing", "failed"))


async def test_a_case_reference_is_given_once(database: Database) -> None:
    def escalate(records: Records) -> None:
        records.conversations.update(start(records).id, case_reference="CASE-1")

    await database.write(escalate)
    with pytest.raises(Conflict):
        await database.write(escalate)


async def test_lists_run_latest_first_in_pages_and_by_filter(database: Database) -> None:
    def prepare(records: Records) -> list[str]:
        made = [
            start(records, title="0"),
            start(records, title="1", owner="key:2"),
            start(records, title="2", user="bob"),
            start(records, title="3"),
            start(records, title="4"),
        ]
        records.conversations.update(made[4].id, status="resolved")
        records.messages.add(made[0].id, "customer", "Hello again", "received")
        return [conversation.id for conversation in made]

    ids = await database.write(prepare)

    async def titles(**filters: Any) -> list[str]:
        found = await database.read(lambda records: records.conversations.list(limit=10, **filters))
        return [conversation.title for conversation in found]

    assert await titles() == ["0", "4", "3", "2", "1"]
    assert await titles(owner="key:2") == ["1"]
    assert await titles(user_id="ada") == ["0", "4", "3", "1"]
    assert await titles(user_id="ada", owner="key:1", status="open") == ["0", "3"]
    assert await titles(status="escalated") == []

    async def page(before: tuple[datetime, str] | None) -> Sequence[Conversation]:
        return await database.read(
            lambda records: records.conversations.list(limit=2, before=before)
        )

    first = await page(None)
    second = await page((first[-1].updated_at, first[-1].id))
    third = await page((second[-1].updated_at, second[-1].id))
    assert [[conversation.title for conversation in found] for found in (first, second, third)] == [
        ["0", "4"],
        ["3", "2"],
        ["1"],
    ]
    assert third[0].id == ids[1]
    assert await page((third[-1].updated_at, third[-1].id)) == []


async def test_pages_of_conversations_of_the_same_moment_do_not_overlap(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = utc_now()
    monkeypatch.setattr("appliance.storage.conversations.utc_now", lambda: moment)
    made = await database.write(lambda records: [start(records).id for _ in range(5)])
    first = await database.read(lambda records: records.conversations.list(limit=3))
    rest = await database.read(
        lambda records: records.conversations.list(
            limit=3, before=(first[-1].updated_at, first[-1].id)
        )
    )
    assert [conversation.id for conversation in [*first, *rest]] == sorted(made, reverse=True)


async def test_unresolved_articles_are_those_of_the_users_other_recent_conversations(
    database: Database,
) -> None:
    long_ago, recently = utc_now() - timedelta(days=8), utc_now() - timedelta(days=7)

    def prepare(records: Records) -> str:
        cases: list[tuple[str, str, ConversationStatus]] = [
            ("open", "ada", "open"),
            ("escalated", "ada", "escalated"),
            ("resolved", "ada", "resolved"),
            ("another's", "bob", "open"),
            ("this", "ada", "open"),
        ]
        for article, user, status in cases:
            conversation = start(records, user=user)
            records.conversations.update(conversation.id, topic_article_id=article, status=status)
        start(records)
        return conversation.id

    this = await database.write(prepare)

    def found(records: Records, since: Any, excluding: str | None) -> frozenset[str]:
        return records.conversations.unresolved_articles("ada", since, excluding)

    assert await database.read(lambda r: found(r, recently, this)) == {"open", "escalated"}
    assert await database.read(lambda r: found(r, long_ago, None)) == {"open", "escalated", "this"}
    assert await database.read(lambda r: found(r, utc_now(), this)) == frozenset()


async def test_a_locked_conversation_is_decided_by_one_at_a_time(database: Database) -> None:
    """Ten readers-then-writers each add one: none is lost."""
    made = await database.write(start)

    def count_up(records: Records) -> None:
        conversation = records.conversations.get(made.id, lock=True)
        assert conversation is not None
        records.conversations.update(made.id, attempts=conversation.attempts + 1)

    await asyncio.gather(*(database.write(count_up) for _ in range(10)))
    counted = await database.read(lambda records: records.conversations.get(made.id))
    assert counted is not None
    assert counted.attempts == 10


async def test_messages_are_numbered_and_come_in_order(database: Database) -> None:
    def talk(records: Records) -> tuple[str, str]:
        first, second = start(records), start(records)
        for number in range(1, 6):
            records.messages.add(first.id, "customer", f"first {number}", "received")
            records.messages.add(second.id, "agent", f"second {number}", "sent")
        return first.id, second.id

    first, second = await database.write(talk)

    async def of(conversation_id: str, limit: int | None = None) -> list[tuple[int, str]]:
        found = await database.read(lambda records: records.messages.list(conversation_id, limit))
        return [(message.seq, message.content) for message in found]

    assert await of(first) == [(number, f"first {number}") for number in range(1, 6)]
    assert await of(second, 2) == [(1, "second 1"), (2, "second 2")]
    assert await of("nothing") == []
    latest = await database.read(lambda records: records.messages.latest(first, 2))
    assert [message.seq for message in latest] == [4, 5]


async def test_an_answer_keeps_everything_that_is_known_of_it(database: Database) -> None:
    details = {
        "stages": {"categorize": 0.25},
        "tokens": {"prompt": 12},
        "flags": ["refund"],
        "model": None,
    }

    def talk(records: Records) -> tuple[str, str, str]:
        conversation = start(records)
        question = records.messages.add(conversation.id, "customer", "Geld zurück! 💸", "received")
        answer = records.messages.add(
            conversation.id,
            "assistant",
            "A person will help.",
            "sent",
            reply_to=question.id,
            category="Billing",
            sentiment="Angry",
            priority=10,
            outcome="handoff",
            mode="none",
            escalated=True,
            details=details,
        )
        records.messages.add(conversation.id, "agent", "Hello", "sent", reply_to=question.id)
        records.messages.set_state(question.id, "answered")
        return conversation.id, question.id, answer.id

    conversation_id, question_id, answer_id = await database.write(talk)
    question = await database.read(lambda records: records.messages.get(question_id))
    assert question is not None
    assert (question.content, question.state, question.escalated) == (
        "Geld zurück! 💸",
        "answered",
        False,
    )
    assert (question.details, question.category, question.reply_to) == ({}, None, None)

    answer = await database.read(lambda records: records.messages.reply(question_id))
    assert answer is not None
    assert (answer.id, answer.conversation_id, answer.seq) == (answer_id, conversation_id, 2)
    assert (answer.category, answer.sentiment, answer.priority) == ("Billing", "Angry", 10)
    assert (answer.outcome, answer.mode, answer.escalated) == ("handoff", "none", True)
    assert answer.details == details
    assert await database.read(lambda records: records.messages.reply(answer_id)) is None
    assert await database.read(lambda records: records.messages.get("nothing")) is None


async def test_a_message_from_the_future_waits_for_nobody(database: Database) -> None:
    """The clock was set back since, and nobody would call it old for as long as that took."""
    conversation = await database.write(start)
    await database.write(
        lambda records: records.messages.add(conversation.id, "customer", "Hello?", "received")
    )
    early = utc_now() - timedelta(hours=1)
    assert await database.write(lambda records: records.messages.fail_received(early, early)) == 1


async def test_messages_that_waited_too_long_have_failed(database: Database) -> None:
    def talk(records: Records) -> list[str]:
        conversation = start(records)
        waiting = records.messages.add(conversation.id, "customer", "Hello?", "received")
        answered = records.messages.add(conversation.id, "customer", "Thanks", "answered")
        said = records.messages.add(conversation.id, "agent", "Hi", "sent")
        return [waiting.id, answered.id, said.id]

    early = utc_now()
    ids = await database.write(talk)
    late = utc_now() + timedelta(seconds=1)
    assert await database.write(lambda records: records.messages.fail_received(early, late)) == 0
    assert await database.write(lambda records: records.messages.fail_received(late, late)) == 1
    found = await database.read(lambda records: [records.messages.get(each) for each in ids])
    assert [message and message.state for message in found] == ["failed", "answered", "sent"]

"""Labelled messages and golden items, on both databases."""

from __future__ import annotations

import pytest

from appliance.domain.examples import Example, text_key
from appliance.errors import Conflict
from appliance.storage import Database, Records
from appliance.storage.records import GoldenRow, Message

pytestmark = pytest.mark.anyio

BY = "key:agent"


def ask(records: Records, text: str = "Where is my invoice?") -> Message:
    records.users.ensure("ada")
    conversation = records.conversations.create("ada", "key:1", text)
    return records.messages.add(conversation.id, "customer", text, "answered")


def item(text: str, source: str = "added", *, built: bool = False, **line: str) -> GoldenRow:
    key = text_key(text)
    return GoldenRow(key[:16], key, {"text": text, **line}, source, built)


async def test_the_latest_word_on_a_message_counts(database: Database) -> None:
    message = await database.write(ask)

    def correct(records: Records) -> None:
        records.examples.correct(message.id, message.content, {"category": "Technical"}, BY)
        records.examples.correct(message.id, message.content, {"sentiment": "Negative"}, "key:2")
        records.examples.correct(message.id, message.content, {"category": "Billing"}, BY)

    await database.write(correct)
    (row,) = await database.read(lambda records: records.examples.list())
    assert (row.category, row.sentiment, row.intent) == ("Billing", "Negative", None)
    assert (row.message_id, row.text, row.source) == (message.id, message.content, "correction")
    assert row.labelled_by == BY
    assert row.created_at < row.updated_at


async def test_what_is_known_is_not_imported_again(database: Database) -> None:
    lines = [
        Example("The tariff changed", "Billing"),
        Example("the tariff changed!", "Billing"),
        Example("the tariff changed!", "General"),
        Example("the tariff changed!", "Billing", "Negative"),
    ]
    added = await database.write(lambda records: records.examples.add(lines, "operator"))
    again = await database.write(lambda records: records.examples.add(lines, "operator"))
    assert (added, again) == (3, 0)
    rows = await database.read(lambda records: records.examples.list())
    assert [(row.category, row.sentiment) for row in rows] == [
        ("Billing", None),
        ("General", None),
        ("Billing", "Negative"),
    ]
    assert {row.source for row in rows} == {"import"}


async def test_the_stand_tells_every_change(database: Database) -> None:
    async def stand() -> str:
        return await database.read(
            lambda records: records.examples.stand() + records.golden.stand()
        )

    seen = [await stand()]
    message = await database.write(ask)
    for work in (
        lambda r: r.examples.correct(message.id, "x", {"category": "Billing"}, BY),
        lambda r: r.examples.correct(message.id, "x", {"category": "General"}, BY),
        lambda r: r.examples.add([Example("y", "General")], BY),
        lambda r: r.golden.put([item("z")]),
        lambda r: r.golden.remove(source="added"),
        lambda r: r.conversations.delete_of("ada"),
    ):
        await database.write(work)
        seen.append(await stand())
    assert len(set(seen[:5])) == 5
    assert seen[5] == seen[3]
    assert seen[6] not in seen[:6]
    assert await stand() == seen[6]


async def test_a_forgotten_customer_teaches_and_measures_no_more(database: Database) -> None:
    message = await database.write(ask)

    def fill(records: Records) -> None:
        records.examples.correct(message.id, message.content, {"category": "Billing"}, BY)
        records.examples.add([Example("The tariff changed", "Billing")], BY)
        key = text_key(message.content)
        records.golden.put(
            [
                GoldenRow("1", key, {"text": message.content}, "corrected", True, message.id),
                item("Where do I park?"),
            ]
        )

    await database.write(fill)
    await database.write(lambda records: records.conversations.delete_of("ada"))
    rows, golden = await database.read(
        lambda records: (records.examples.list(), records.golden.list())
    )
    assert [row.text for row in rows] == ["The tariff changed"]
    assert [row.line["text"] for row in golden] == ["Where do I park?"]


@pytest.mark.parametrize(
    "labels", [{}, {"sentiment": "Sad"}, {"category": "x" * 65}, {"intent": "x" * 65}]
)
async def test_the_database_refuses_what_is_no_label(
    database: Database, labels: dict[str, str]
) -> None:
    message = await database.write(ask)
    with pytest.raises(Conflict):
        await database.write(
            lambda records: records.examples.correct(message.id, "x", labels, BY)  # type: ignore[arg-type]
        )


async def test_golden_items_by_source(database: Database) -> None:
    rows = [
        item("One", "articles", built=True, category="Billing"),
        item("Two", "mails", faq="7"),
        item("Three", "mails"),
    ]
    await database.write(lambda records: records.golden.put(rows))
    found = await database.read(lambda records: records.golden.list())
    assert {row.id: row for row in found} == {row.id: row for row in rows}
    assert [row.source for row in found] == ["articles", "mails", "mails"]
    keys = await database.read(lambda records: records.golden.keys())
    assert keys == {text_key(text) for text in ("One", "Two", "Three")}
    await database.write(lambda records: records.golden.put([item("two", "mails", faq="8")]))
    changed = await database.read(lambda records: records.golden.list("mails"))
    assert {row.line.get("faq") for row in changed} == {"8", None}

    await database.write(lambda records: records.golden.remove_built())
    assert len(await database.read(lambda records: records.golden.list())) == 2
    one = rows[2].id
    assert await database.write(lambda records: records.golden.remove(item_id=one)) == 1
    assert await database.write(lambda records: records.golden.remove(item_id=one)) == 0
    assert await database.write(lambda records: records.golden.remove(source="mails")) == 1


async def test_conversations_that_somebody_confirmed_or_corrected(database: Database) -> None:
    def fill(records: Records) -> dict[str, str]:
        made: dict[str, str] = {}
        for name in ("open", "solved", "liked", "disliked", "corrected"):
            message = ask(records, name)
            made[message.conversation_id] = name
            reply = records.messages.add(message.conversation_id, "assistant", "Hi", "sent")
            if name == "solved":
                records.conversations.update(message.conversation_id, status="resolved")
            if name in ("liked", "disliked"):
                rating = "up" if name == "liked" else "down"
                records.feedback.put(reply.id, message.conversation_id, rating)
            if name in ("corrected", "liked"):
                records.examples.correct(message.id, name, {"category": "Billing"}, BY)
        return made

    made = await database.write(fill)
    found = await database.read(lambda records: records.golden.conversations())
    assert sorted(made[each] for each in found) == ["corrected", "liked", "solved"]

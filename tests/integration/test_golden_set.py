"""The desk's own golden set: what is built, what never trains, what a person adds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.domain.examples import held_out, text_key
from appliance.errors import Forbidden, InvalidInput, NotFound
from appliance.evaluation.golden import GoldenItem
from appliance.services.access import OPERATOR, Principal
from appliance.services.corrections import Corrections
from appliance.services.golden import GoldenSet
from appliance.services.knowledge import save_articles
from appliance.services.learning import taught
from appliance.storage import Database, Records
from appliance.storage.records import Message
from tests.builders import PASSWORD, REFUND, SMALL_BASE

pytestmark = pytest.mark.anyio

AGENT = Principal("agent", "key:agent")


def on_side(*, judging: bool, about: str = "My tariff") -> str:
    """A text whose hash puts it among the judges, or not."""
    texts = (f"{about} {n} is wrong" for n in range(1_000))
    return next(text for text in texts if held_out(text_key(text)) is judging)


class Desk:
    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        shipped = folder / "examples.jsonl"
        shipped.write_text(json.dumps({"text": "forgot my pasword", "category": "Account"}))
        self.golden = GoldenSet(database, shipped)
        self.corrections = Corrections(database)

    async def talk(self, *turns: tuple[str, str | None], solved: bool = False) -> list[Message]:
        """A conversation: what the customer says, and the article that the answer cites; without
        one it is small talk. The customers' messages."""

        def work(records: Records) -> list[Message]:
            records.users.ensure("ada")
            conversation = records.conversations.create("ada", "key:shop", "Help")
            asked = []
            for text, article in turns:
                message = records.messages.add(conversation.id, "customer", text, "answered")
                records.messages.add(
                    conversation.id,
                    "assistant",
                    "Like this.",
                    "sent",
                    reply_to=message.id,
                    outcome="answered" if article else "smalltalk",
                    details={"citations": [{"id": article, "title": "t"}] if article else []},
                )
                asked.append(message)
            records.conversations.update(
                conversation.id,
                status="resolved" if solved else "open",
                topic_question=turns[0][0],
            )
            return asked

        return await self.database.write(work)

    async def rate(self, message: Message, rating: Any) -> None:
        def work(records: Records) -> None:
            reply = records.messages.reply(message.id)
            assert reply is not None
            records.feedback.put(reply.id, message.conversation_id, rating)

        await self.database.write(work)

    async def lines(self, *sources: str) -> list[dict[str, Any]]:
        """The set as the evaluation reads it, after checking that it can."""
        items = await self.golden.items()
        for item in items:
            msgspec.convert(item, GoldenItem)
        return [item for item in items if item["source"] in sources or not sources]


@pytest.fixture
async def desk(database: Database, tmp_path: Path) -> Desk:
    await save_articles(database, SMALL_BASE, replace=True)
    return Desk(database, tmp_path)


async def test_articles_questions_are_items(desk: Desk) -> None:
    built = await desk.golden.build(OPERATOR)
    assert (built.items, built.training) == ({"articles": 4}, 0)
    lines = await desk.lines()
    assert {
        "text": PASSWORD.question,
        "category": "Account",
        "faq": "21",
        "answerable": True,
        "source": "articles",
    } in lines
    await save_articles(desk.database, [PASSWORD], replace=True)
    assert (await desk.golden.build(OPERATOR)).items == {"articles": 1}


async def test_what_a_customer_confirmed_is_an_item(desk: Desk) -> None:
    await desk.talk(("How can I get my money back", "12"), ("That worked", None), solved=True)
    built = await desk.golden.build(OPERATOR)
    assert built.items == {"articles": 4, "confirmed": 1}
    (line,) = await desk.lines("confirmed")
    assert line == {
        "text": "How can I get my money back",
        "faq": "12",
        "category": REFUND.category,
        "answerable": True,
        "source": "confirmed",
    }


@pytest.mark.parametrize(
    "why", ["open", "other answers", "nothing after", "disliked", "article gone"]
)
async def test_what_nobody_confirmed_is_none(why: str, desk: Desk) -> None:
    turns: list[tuple[str, str | None]] = [("Money back now", "12"), ("That worked", None)]
    if why == "other answers":
        turns.insert(1, ("It does not work", "1"))
    elif why == "nothing after":
        turns.pop()
    elif why == "article gone":
        turns[0] = ("Money back now", "99")
    asked = await desk.talk(*turns, solved=why != "open")
    if why == "disliked":
        await desk.rate(asked[0], "down")
    await desk.golden.build(OPERATOR)
    assert await desk.lines("confirmed") == []


async def test_a_liked_answer_is_an_item_with_what_was_said_before(desk: Desk) -> None:
    asked = await desk.talk(("Can I get a refund?", "12"), ("And when?", "12"))
    await desk.rate(asked[1], "up")
    await desk.golden.build(OPERATOR)
    (line,) = await desk.lines("confirmed")
    assert line["text"] == "And when?"
    assert line["history"] == [
        {"role": "customer", "content": "Can I get a refund?"},
        {"role": "assistant", "content": "Like this."},
    ]


@pytest.mark.parametrize("judging", [True, False])
async def test_a_correction_measures_or_teaches_never_both(judging: bool, desk: Desk) -> None:
    text = on_side(judging=judging)
    (message,) = await desk.talk((text, "12"))
    await desk.rate(message, "up")
    await desk.corrections.correct(
        AGENT, message.id, {"category": "General", "sentiment": "Negative"}
    )
    built = await desk.golden.build(OPERATOR)
    found = await desk.lines("corrected")
    teaching = await desk.database.read(taught)
    assert [line["text"] for line in found] == ([text] if judging else [])
    assert [e.text for e in teaching.taught] == ([] if judging else [text])
    assert built.training == (0 if judging else 1)
    if judging:
        assert found[0]["category"] == "General"
        assert found[0]["sentiment"] == "Negative"
        assert (found[0]["faq"], found[0]["answerable"]) == ("12", True)
    assert not {text_key(line["text"]) for line in await desk.lines()} & {
        text_key(e.text) for e in teaching.taught
    }


async def test_what_trained_the_shipped_heads_measures_nothing(desk: Desk) -> None:
    asked = await desk.talk(("Forgot my pasword!", "21"))
    await desk.rate(asked[0], "up")
    assert (await desk.golden.build(OPERATOR)).training == 1
    assert await desk.lines("confirmed") == []
    added = await desk.golden.add(OPERATOR, [{"text": "forgot my pasword"}, {"text": "My own"}])
    assert (added.added, added.training) == (1, 1)
    assert [line["text"] for line in await desk.lines("added")] == ["My own"]


async def test_building_again_changes_nothing_and_leaves_what_was_added(desk: Desk) -> None:
    own = {"text": PASSWORD.question, "category": "General", "source": "mails"}
    await desk.golden.add(OPERATOR, [own, {"text": "My card 4111 1111 1111 1111", "faq": "12"}])
    await desk.talk(("Money back now", "12"), ("That worked", None), solved=True)
    await desk.golden.build(OPERATOR)
    before = await desk.golden.rows()
    await desk.golden.build(OPERATOR)
    assert await desk.golden.rows() == before
    assert await desk.lines("mails") == [own]
    assert [line["text"] for line in await desk.lines("added")] == ["My card [card]"]


async def test_items_are_removed_by_id_or_by_source(desk: Desk) -> None:
    await desk.golden.build(OPERATOR)
    first = (await desk.golden.rows())[0]
    assert await desk.golden.remove(OPERATOR, item_id=first.id) == 1
    with pytest.raises(NotFound):
        await desk.golden.remove(OPERATOR, item_id=first.id)
    assert await desk.golden.remove(OPERATOR, source="articles") == 3
    with pytest.raises(InvalidInput):
        await desk.golden.remove(OPERATOR)
    entries = await desk.database.read(lambda records: records.audit.list(9))
    assert [e.action for e in entries] == [
        "golden.remove",
        "golden.remove",
        "golden.build",
        "kb.import",
    ]


async def test_only_administrators_change_the_set(desk: Desk) -> None:
    with pytest.raises(Forbidden):
        await desk.golden.build(AGENT)
    with pytest.raises(Forbidden):
        await desk.golden.add(AGENT, [{"text": "x"}])
    with pytest.raises(Forbidden):
        await desk.golden.remove(AGENT, source="articles")

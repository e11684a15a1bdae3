"""Answer records on both databases: written, guarded, erased, verified, run again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, delete, event, func, select, update

from appliance.domain.chain import GENESIS, Head, Sealed, digest, digest_personal
from appliance.domain.passage import Article
from appliance.domain.record import Described, article_digest
from appliance.errors import Conflict, Forbidden, InvalidInput, NotFound
from appliance.knowledge.embedding import EncodingBridge, HashedEmbedder
from appliance.llm.scripted import ScriptedModel
from appliance.services.access import OPERATOR, Principal
from appliance.services.answer_query import Ask
from appliance.services.answer_records import AnswerRecords, Verdict, read_head
from appliance.services.answer_replay import AnswerReplay
from appliance.services.knowledge import save_articles
from appliance.services.provenance import Provenance, prompt_digest
from appliance.services.query_result import QueryResult
from appliance.services.users import Users
from appliance.storage import Database, Records
from appliance.storage.engines import Access, open_engine, parse_url
from appliance.storage.keys import KeyRepository
from appliance.storage.tables import (
    analytics_events,
    answer_chain,
    answer_records,
    api_keys,
    audit_log,
    conversations,
    messages,
    users,
    webhook_deliveries,
)
from tests.builders import PASSWORD, REFUND, SMALL_BASE
from tests.integration.test_answer_query import AGENT, CONFIRMATION, FAILURE, SHOP, Desk
from tests.rivals import met, stopped, uncommitted

pytestmark = pytest.mark.anyio

WEIGHTS = "ab" * 32


class RecordedDesk(Desk):
    """A desk whose records are looked at."""

    @property
    def records(self) -> AnswerRecords:
        return AnswerRecords(self.database)

    @property
    def replay(self) -> AnswerReplay:
        return AnswerReplay(self.database, self.answers)

    async def verify(self, name: str | None = None, **options: Any) -> Verdict:
        return await self.records.verify(name, **options)

    async def problems(self, name: str | None = None, **options: Any) -> list[tuple[Any, str]]:
        verdict = await self.verify(name, **options)
        assert verdict.sound == (not verdict.findings)
        return [(finding.record, finding.problem) for finding in verdict.findings]

    async def talk(self) -> list[QueryResult]:
        """Four answers in two conversations of two users."""
        first = await self.ask(PASSWORD.question, user="ada")
        return [
            first,
            await self.ask(FAILURE, user="ada", conversation=first.conversation_id),
            await self.ask(REFUND.question, user="bob"),
            await self.ask(CONFIRMATION, user="ada", conversation=first.conversation_id),
        ]


@pytest.fixture
async def desk(database: Database, tmp_path: Path) -> AsyncIterator[RecordedDesk]:
    bridge = EncodingBridge(HashedEmbedder())
    await save_articles(database, SMALL_BASE, replace=True)
    desk = RecordedDesk(database, bridge, tmp_path / "index")
    yield desk
    await desk.answers.drain()
    bridge.close()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(parse_url(database_url), Access.WRITE)
    yield engine
    engine.dispose()


def tamper(engine: Engine, *statements: Any) -> None:
    """Write as somebody who may do everything, triggers or not."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        else:
            connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
            names = connection.exec_driver_sql(
                "SELECT name FROM sqlite_master WHERE type='trigger'"
            )
            for name in names.scalars().all():
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)


def record_at(engine: Engine, seq: int) -> Sealed:
    with engine.begin() as connection:
        found = Records(connection).answers.get(seq)
    assert found is not None
    return found


def changed(at: int, /, **values: Any) -> Any:
    return update(answer_records).where(answer_records.c.seq == at).values(**values)


# --- written with every answer --------------------------------------------------------------------


async def test_every_answer_has_a_record(desk: RecordedDesk) -> None:
    results = await desk.talk()
    listed = await desk.records.latest(10)
    assert [one.message_id for one in listed] == [r.message_id for r in reversed(results)]
    assert [one.record for one in listed] == [4, 3, 2, 1]
    assert listed[-1].message == PASSWORD.question
    assert (await desk.verify()).records == 4
    assert await desk.problems() == []


async def test_a_record_tells_how_the_answer_came_about(desk: RecordedDesk) -> None:
    desk.with_model(ScriptedModel(["A forgotten password is reset. Robots do it tomorrow."]))
    result = await desk.ask(PASSWORD.question)
    shown = await desk.records.show(result.message_id)
    content, personal = shown.content, shown.personal
    assert personal is not None
    assert personal["query"]["text"] == PASSWORD.question
    assert personal["query"]["user_id"] == "ada"
    assert personal["answer"]["response"] == result.response
    assert len(personal["answer"]["cut"]) == 1
    assert content["decisions"]["category"] == result.category
    assert content["decisions"]["sentiment_confidence"] == result.metadata.sentiment_confidence
    assert content["stages"] == result.metadata.stages
    assert [p["id"] for p in content["passages"]] == [p["id"] for p in result.metadata.kb_results]
    assert content["passages"][0]["digest"] == article_digest(PASSWORD)
    assert content["passages"][0]["text"] == PASSWORD.answer
    assert content["answer"]["outcome"] == result.metadata.outcome
    assert [c["id"] for c in content["answer"]["citations"]] == [PASSWORD.id]
    assert content["at"] == result.timestamp.isoformat()
    made_with = content["made_with"]
    version, knowledge = await desk.database.read(lambda r: r.knowledge.stand())
    assert (made_with["knowledge_version"], made_with["knowledge_digest"]) == (version, knowledge)
    assert (made_with["model"], made_with["responder"]) == ("scripted", "account")
    assert made_with["prompts"] == prompt_digest("account") != prompt_digest("billing")
    assert made_with["runtime"]["appliance"]
    assert set(shown.articles.values()) == {"same"}


async def test_what_stands_behind_an_answer_is_recorded(desk: RecordedDesk) -> None:
    heads = iter(("first heads", "retrained"))
    provenance = Provenance(
        weights=lambda model: WEIGHTS if model == "scripted" else None,
        heads=lambda: next(heads),
        index=lambda: desk.base.fingerprint,
        encoder="hashed",
        settings={"answer_mode": "drafted"},
    )
    desk.answers._provenance = provenance
    with_model = await desk.ask(PASSWORD.question)
    desk.with_model(ScriptedModel(fail_after=0))
    desk.answers._provenance = provenance
    without = await desk.ask(PASSWORD.question)
    first, second = [
        (await desk.records.show(result.message_id)).content["made_with"]
        for result in (with_model, without)
    ]
    assert (first["model"], first["weights"]) == ("scripted", WEIGHTS)
    assert (second["model"], second["weights"]) == (None, None)
    assert (first["heads"], second["heads"]) == ("first heads", "retrained")
    assert first["index"] == desk.base.fingerprint
    assert first["encoder"] == "hashed"


async def test_a_record_is_found_by_every_name(desk: RecordedDesk) -> None:
    result = await desk.ask(PASSWORD.question)
    asked, replied = await desk.messages(result.conversation_id)
    for name in ("1", asked.id, replied.id):
        assert (await desk.records.show(name)).record == 1
    for name in ("0", "2", "9" * 40, "nothing", "", "²"):
        with pytest.raises(NotFound):
            await desk.records.show(name)


async def test_records_are_for_agents_and_admins(desk: RecordedDesk) -> None:
    result = await desk.ask(PASSWORD.question)
    for who in (AGENT, OPERATOR):
        assert (await desk.records.show_to(who, result.message_id)).record == 1
    with pytest.raises(Forbidden):
        await desk.records.show_to(SHOP, result.message_id)


async def test_answers_at_once_make_one_chain(desk: RecordedDesk) -> None:
    tasks = [await desk.begin(PASSWORD.question, user=f"user-{n}") for n in range(24)]
    await asyncio.gather(*tasks)
    assert (await desk.verify()).records == 24
    assert await desk.problems() == []


async def test_an_answer_that_is_not_stored_leaves_no_record(
    desk: RecordedDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.ask(PASSWORD.question)
    broken = await desk.begin(PASSWORD.question, user="bob")
    monkeypatch.setattr("appliance.services.answer_query._status", lambda *_: "no such status")
    with pytest.raises(Conflict):
        await broken
    monkeypatch.undo()
    await desk.ask(REFUND.question)
    assert (await desk.verify()).records == 2
    assert await desk.problems() == []


async def test_a_record_costs_one_read_and_one_insert(desk: RecordedDesk) -> None:
    """Within the transaction that stores the answer; the head moves inside the database."""
    seen: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "answer_" in statement:
            seen.append(statement.split()[0])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        await desk.ask(PASSWORD.question)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert seen == ["SELECT", "INSERT"]


# --- guarded by the database ----------------------------------------------------------------------

CHANGES = (
    "UPDATE answer_records SET content = '{}'",
    "UPDATE answer_records SET personal = 'other' WHERE seq = 1",
    "UPDATE answer_records SET personal = NULL, salt = NULL, digest = previous",
    "UPDATE answer_records SET personal = NULL WHERE seq = 1",
    "DELETE FROM answer_records",
    "DELETE FROM answer_records WHERE seq = 2",
    "INSERT INTO answer_records SELECT seq + 1, 'm', 'c', content, personal, salt, personal_digest,"
    " previous, digest FROM answer_records WHERE seq = 2",
    "UPDATE answer_chain SET seq = 1",
    "UPDATE answer_chain SET seq = seq + 1",
    "UPDATE answer_chain SET digest = 'x'",
    "DELETE FROM answer_chain",
)
CHANGES_IN = {
    "sqlite": (
        "INSERT OR REPLACE INTO answer_records SELECT * FROM answer_records",
        "INSERT OR REPLACE INTO answer_records SELECT c.seq + 1, r.message_id, 'c', '{}', NULL,"
        " NULL, 'x', c.digest, 'y' FROM answer_chain c JOIN answer_records r ON r.seq = 1",
        "INSERT OR REPLACE INTO answer_chain SELECT * FROM answer_chain",
    ),
    "postgresql": ("TRUNCATE answer_records", "TRUNCATE answer_chain"),
}


async def test_the_database_refuses_to_change_a_record(desk: RecordedDesk, engine: Engine) -> None:
    for text in (PASSWORD.question, REFUND.question):
        await desk.ask(text)
    for statement in CHANGES + CHANGES_IN[engine.dialect.name]:
        with (
            pytest.raises(Exception, match=r"answer record|erased_whole"),
            engine.begin() as connection,
        ):
            connection.exec_driver_sql(statement)
    assert await desk.problems() == []


# --- erasing --------------------------------------------------------------------------------------


def everything(connection: Connection) -> str:
    """All that the database holds, as one text."""
    tables = (
        *(answer_records, messages, conversations, users),
        *(analytics_events, audit_log, api_keys, webhook_deliveries),
    )
    return repr([row for table in tables for row in connection.execute(select(table)).all()])


async def test_forgetting_a_user_leaves_a_chain_that_verifies(
    desk: RecordedDesk, engine: Engine
) -> None:
    kept = await desk.ask(PASSWORD.question, user="bob")
    await desk.database.write(
        lambda r: r.webhooks.add("https://desk.lan/hook", ["query.created"], "sealed")
    )
    first = await desk.ask("The zebra password crash", user="zebra-7")
    await desk.ask(FAILURE, user="zebra-7", conversation=first.conversation_id)
    await desk.database.write(lambda r: r.keys.add("shop", "customer", "zebra-7", "hash"))
    before = await desk.verify()
    forgetting = Users(desk.database)
    with pytest.raises(Forbidden):
        await forgetting.forget(AGENT, "zebra-7")
    await forgetting.forget(OPERATOR, "zebra-7")

    after = await desk.verify()
    assert after.sound
    assert (after.head, after.records) == (before.head, before.records)
    assert (before.erased, after.erased) == ([], [2, 3])
    with engine.begin() as connection:
        assert "zebra" not in everything(connection)
    assert (await desk.records.show(kept.message_id)).personal is not None
    shown = await desk.records.show("2")
    assert shown.personal is None
    assert shown.content["decisions"]["category"] == first.category
    assert [one.message for one in await desk.records.latest(3)] == [None, None, PASSWORD.question]
    with pytest.raises(Conflict, match="erased"):
        await desk.replay("2")
    with pytest.raises(NotFound):
        await forgetting.forget(OPERATOR, "zebra-7")
    assert (await desk.ask(PASSWORD.question, user="zebra-7")).response


async def test_an_answer_under_way_leaves_nothing_of_a_forgotten_user(
    desk: RecordedDesk, engine: Engine
) -> None:
    task = await desk.begin("The zebra password", user="zebra-7")
    await Users(desk.database).forget(OPERATOR, "zebra-7")
    await asyncio.gather(task, return_exceptions=True)
    assert await desk.problems() == []
    with engine.begin() as connection:
        assert "zebra" not in everything(connection)


async def test_forgetting_waits_for_an_answer_that_is_just_being_stored(
    desk: RecordedDesk, database_url: str, engine: Engine
) -> None:
    """Its record would come behind the erasing, and keep the words that the conversation lost."""
    accepted = await desk.answers.accept(Ask("zebra-7", "The zebra password"), SHOP)
    here = accepted.conversation.id

    def answer(records: Records) -> None:
        # No more than an answer has to hold. Ours hold the user as well, as long as they change
        # their conversation twice: PostgreSQL then checks again whose it is.
        records.conversations.get(here, lock=True)
        reply = records.messages.add(
            here, "assistant", "The zebra is reset.", "sent", reply_to=accepted.message.id
        )
        records.answers.append(reply, Described({}, {"answer": "The zebra is reset."}))

    async with uncommitted(database_url, answer):
        forgetting = asyncio.create_task(Users(desk.database).forget(OPERATOR, "zebra-7"))
        await met(database_url, forgetting)
    await forgetting
    verdict = await desk.verify()
    assert (verdict.sound, verdict.erased) == (True, [1])
    with engine.begin() as connection:
        assert "zebra" not in everything(connection)


async def test_whoever_begins_to_talk_does_not_keep_an_administrator_from_forgetting(
    desk: RecordedDesk, database_url: str
) -> None:
    """A conversation that is begun between the deleting of the others and of the user."""
    await desk.ask(PASSWORD.question, user="zebra-7")
    async with aclosing(Database(database_url)) as rival:
        forget = Users(rival).forget(OPERATOR, "zebra-7")
        async with stopped(KeyRepository, "delete_of", forget):
            again = desk.answers.accept(Ask("zebra-7", PASSWORD.question), SHOP)
            asking = asyncio.create_task(again)
            await met(database_url, asking)
    await asking
    assert (await desk.ask(PASSWORD.question, user="zebra-7")).response
    verdict = await desk.verify()
    assert (verdict.sound, verdict.erased) == (True, [1])


async def test_a_conversation_is_erased_alone(desk: RecordedDesk) -> None:
    first, _, other, _ = await desk.talk()

    def erase(records: Records) -> int:
        records.conversations.get(first.conversation_id, lock=True)
        return records.answers.erase_conversation(first.conversation_id)

    assert await desk.database.write(erase) == 3
    assert await desk.database.write(erase) == 0
    assert (await desk.records.show(other.message_id)).personal is not None
    # Its messages are still there, which an erasure would have taken along.
    assert await desk.problems() == [(n, "message") for n in (1, 2, 4)]


# --- verifying ------------------------------------------------------------------------------------


def anew(record: Sealed, personal: str) -> Any:
    """Change a record as somebody does it who knows how they are made."""
    sealed = digest_personal(record.salt or "", personal)
    return changed(
        record.seq,
        personal=personal,
        personal_digest=sealed,
        digest=digest(record.previous, sealed, record.content),
    )


def changed_answer(record: Sealed) -> str:
    personal = json.loads(record.personal or "")
    personal["answer"]["response"] = "We never said that."
    return json.dumps(personal)


def exchanged(one: int, other: int) -> list[Any]:
    return [changed(one, seq=90), changed(other, seq=one), changed(90, seq=other)]


Tampering = Callable[[Engine], list[Any]]
TAMPERINGS: dict[str, tuple[Tampering, list[tuple[int, str]]]] = {
    "content": (lambda e: [changed(2, content=record_at(e, 2).content + " ")], [(2, "changed")]),
    "personal": (
        lambda e: [changed(3, personal=changed_answer(record_at(e, 3)))],
        [(3, "changed"), (3, "message")],
    ),
    "sealed anew": (
        lambda e: [anew(record_at(e, 2), changed_answer(record_at(e, 2)))],
        [(2, "resealed"), (2, "message")],
    ),
    "last sealed anew": (
        lambda e: [anew(record_at(e, 4), changed_answer(record_at(e, 4)))],
        [(4, "resealed"), (4, "message")],
    ),
    "deleted": (
        lambda e: [delete(answer_records).where(answer_records.c.seq == 2)],
        [(2, "missing"), (None, "unrecorded")],  # type: ignore[list-item]
    ),
    "tail": (
        lambda e: [delete(answer_records).where(answer_records.c.seq >= 3)],
        [(3, "missing"), (None, "unrecorded"), (None, "unrecorded")],  # type: ignore[list-item]
    ),
    "tail and head": (
        lambda e: [
            delete(answer_records).where(answer_records.c.seq == 4),
            update(answer_chain).values(seq=3, digest=record_at(e, 3).digest),
        ],
        [(None, "unrecorded")],  # type: ignore[list-item]
    ),
    "everything": (
        lambda e: [delete(answer_records), update(answer_chain).values(seq=0, digest=GENESIS)],
        [(None, "unrecorded")] * 4,  # type: ignore[list-item]
    ),
    "head": (lambda e: [update(answer_chain).values(digest=GENESIS)], [(4, "resealed")]),
    "exchanged": (lambda e: exchanged(2, 3), [(2, "moved"), (3, "moved")]),
    "erased": (lambda e: [changed(1, personal=None, salt=None)], [(1, "message")]),
}


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_tampering_is_found_and_named(desk: RecordedDesk, engine: Engine, name: str) -> None:
    await desk.talk()
    tampering, wanted = TAMPERINGS[name]
    tamper(engine, *tampering(engine))
    assert await desk.problems() == wanted
    suspects = {number for number, _ in wanted if number is not None}
    for number in range(1, 5):
        with_record = await desk.database.read(lambda r, n=number: r.answers.get(n))
        if with_record is not None:
            problems = await desk.problems(str(number))
            assert bool(problems) == (number in suspects), (number, problems)


async def test_a_changed_message_is_found(desk: RecordedDesk, engine: Engine) -> None:
    results = await desk.talk()
    answer = update(messages).where(messages.c.id == results[2].message_id)
    tamper(engine, answer.values(content="Everything is refunded."))
    assert await desk.problems() == [(3, "message")]
    (question, *_) = await desk.messages(results[0].conversation_id)
    asked = update(messages).where(messages.c.id == question.id)
    tamper(engine, asked.values(content="What?"))
    assert await desk.problems() == [(1, "message"), (3, "message")]
    tamper(engine, delete(messages).where(messages.c.id == results[3].message_id))
    found = await desk.verify("4")
    assert {finding.problem for finding in found.findings} == {"message"}


async def test_a_whole_chain_made_anew_is_found_with_a_head_kept_elsewhere(
    desk: RecordedDesk, engine: Engine
) -> None:
    """The one thing that nothing inside the database can tell."""
    results = await desk.talk()
    kept = read_head((await desk.verify()).head)
    statements, previous = [], record_at(engine, 1).digest
    for seq in (2, 3, 4):
        record = record_at(engine, seq)
        personal = changed_answer(record) if seq == 2 else record.personal or ""
        sealed = digest_personal(record.salt or "", personal)
        made = digest(previous, sealed, record.content)
        values = {"personal": personal, "personal_digest": sealed, "previous": previous}
        statements.append(changed(seq, digest=made, **values))
        previous = made
    said = update(messages).where(messages.c.id == results[1].message_id)
    tamper(
        engine,
        *statements,
        said.values(content="We never said that."),
        update(answer_chain).values(digest=previous),
    )
    assert await desk.problems() == []
    assert await desk.problems(expect=kept) == [(4, "resealed")]


async def test_a_head_kept_elsewhere_stands_while_the_chain_grows(
    desk: RecordedDesk, engine: Engine
) -> None:
    assert await desk.problems(expect=Head(0, GENESIS)) == []
    await desk.ask(PASSWORD.question)
    kept = read_head((await desk.verify()).head)
    await desk.ask(REFUND.question)
    assert await desk.problems(expect=kept) == []
    assert await desk.problems(expect=Head(9, kept.digest)) == [(9, "missing")]


@pytest.mark.parametrize("text", ["", "1", "1:", ":" + GENESIS, "x:" + GENESIS, "1:" + "g" * 64])
def test_a_head_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        read_head(text)
    assert read_head(f" 12:{GENESIS}\n") == Head(12, GENESIS)


async def test_verifying_reads_a_long_chain_in_pages(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.storage.answer_records.PAGE", 3)

    def write(records: Records) -> None:
        records.users.ensure("ada")
        conversation = records.conversations.create("ada", "key:1", "Help")
        for _ in range(9):
            question = records.messages.add(conversation.id, "customer", "Why?", "answered")
            reply = records.messages.add(
                conversation.id, "assistant", "So.", "sent", reply_to=question.id
            )
            personal = {"query": {"text": "Why?"}, "answer": {"response": "So."}}
            records.answers.append(reply, Described({}, personal))

    await database.write(write)
    verdict = await AnswerRecords(database).verify()
    assert (verdict.sound, verdict.records) == (True, 9)


# --- replaying ------------------------------------------------------------------------------------


async def stored(desk: RecordedDesk) -> dict[str, int]:
    counts = await desk.counts()
    count = select(func.count()).select_from(answer_records)
    counts["records"] = await desk.database.read(lambda r: r.answers._connection.scalar(count) or 0)
    return counts


async def test_the_same_desk_gives_the_same_answer_and_stores_nothing(desk: RecordedDesk) -> None:
    await desk.talk()
    before = await stored(desk)
    for number in range(1, 5):
        replayed = await desk.replay(str(number))
        assert replayed.same, replayed
        assert (replayed.differences, replayed.response, replayed.underneath) == ([], [], [])
    assert await stored(desk) == before


async def test_a_replay_shows_what_new_knowledge_changes(desk: RecordedDesk) -> None:
    desk.with_model(ScriptedModel(fail_after=0))
    result = await desk.ask(PASSWORD.question)
    changed_article = Article(
        PASSWORD.id, PASSWORD.question, "Call us. " + PASSWORD.answer, "Account"
    )
    await save_articles(desk.database, [changed_article], replace=False)
    replayed = await desk.replay(result.message_id)
    assert not replayed.same
    assert "passages.21.digest" in [difference.what for difference in replayed.differences]
    assert "+Call us." in replayed.response
    assert {d.what for d in replayed.underneath} == {"knowledge_version", "knowledge_digest"}
    assert (await desk.records.show("1")).articles[PASSWORD.id] == "changed"
    await save_articles(desk.database, [REFUND], replace=True)
    assert (await desk.records.show("1")).articles[PASSWORD.id] == "gone"
    # What was said from it can still be read.
    assert (await desk.records.show("1")).content["passages"][0]["text"] == PASSWORD.answer


async def test_a_replay_shows_what_another_model_changes(desk: RecordedDesk) -> None:
    desk.answers._provenance = Provenance(weights=lambda model: WEIGHTS)
    result = await desk.ask(PASSWORD.question)
    desk.with_model(ScriptedModel(fail_after=0))
    replayed = await desk.replay(result.message_id)
    assert not replayed.same
    assert "answer.mode" in [difference.what for difference in replayed.differences]
    assert {d.what: d.then for d in replayed.underneath} == {
        "model": "scripted",
        "weights": WEIGHTS,
    }


async def test_a_replay_has_the_context_of_then(desk: RecordedDesk) -> None:
    """Attempts, history, the VIP mark and repeats as they were, whatever happened since."""
    await desk.database.write(lambda r: (r.users.ensure("ada"), r.users.update("ada", vip=True)))
    first = await desk.ask(PASSWORD.question)
    failed = await desk.ask(FAILURE, conversation=first.conversation_id)
    await desk.ask(FAILURE, conversation=first.conversation_id)
    await desk.database.write(lambda r: r.users.update("ada", vip=False))
    assert (await desk.replay(failed.message_id)).same
    shown = await desk.records.show(failed.message_id)
    assert shown.personal is not None
    assert shown.personal["query"]["vip"] is True
    assert shown.personal["query"]["topic"]["attempts"] == 1
    assert shown.content["decisions"]["topic"]["attempts"] == 2


async def test_a_customer_who_left_is_told_by_the_replay(desk: RecordedDesk) -> None:
    left = asyncio.Event()
    left.set()
    result = await desk.ask(PASSWORD.question, left=left)
    assert (await desk.replay(result.message_id)).left
    assert not (await desk.replay((await desk.ask(PASSWORD.question)).message_id)).left


async def test_a_principal_is_what_decides(desk: RecordedDesk) -> None:
    with pytest.raises(Forbidden):
        await Users(desk.database).forget(Principal("customer", "key:x", "ada"), "ada")

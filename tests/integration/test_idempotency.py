"""Requests that come twice are carried out once: as services on both databases, and over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select, update

from appliance.domain.once import CURRENT, Claim, Once, once
from appliance.domain.policy import CONVERSATION_QUEUE
from appliance.errors import (
    Conflict,
    KeyReused,
    NotFound,
    RateLimited,
    StorageUnavailable,
    UnderWay,
)
from appliance.graph.build import SupportGraph
from appliance.llm.scripted import ScriptedModel
from appliance.services.access import OPERATOR, Access, NewKey, Principal
from appliance.services.answer_query import AnswerQuery, Ask
from appliance.services.once import Idempotency, Kept
from appliance.services.query_result import QueryResult
from appliance.services.users import Users
from appliance.storage import Database, Records
from appliance.storage.idempotency import IdempotencyRepository
from appliance.storage.tables import (
    analytics_events,
    api_keys,
    feedback,
    idempotency_keys,
    messages,
)
from tests.builders import PASSWORD, FixedSearch, Heard, make_agents, passage
from tests.integration.test_api_contract import (  # noqa: F401 - fixtures among them
    API,
    HOOK,
    Desk,
    assert_problem,
    desk,
    reach,
    read_events,
    runtime_dir,
    template,
)
from tests.rivals import halted, met, run, stopped

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning"),
]

KEY = {"Idempotency-Key": "order-66/retry"}


def make_answers(database: Database, model: ScriptedModel | None = None, **options: Any) -> Any:
    """Answering over twins, as a process begins it: with a holder of its own."""
    agents = make_agents(
        model or ScriptedModel([PASSWORD.answer]), search=FixedSearch([passage(PASSWORD)])
    )
    idempotency = Idempotency(database, options.pop("hours", 24.0))
    return AnswerQuery(
        database, SupportGraph(agents), lambda: "twin", idempotency=idempotency, **options
    )


@pytest.fixture
async def answers(database: Database) -> AsyncIterator[AnswerQuery]:
    made = make_answers(database)
    yield made
    await made.drain()


def asking(text: str = PASSWORD.question, key: str = "k", owner: str = "operator") -> Once:
    return once(owner, key, text.encode())


async def ask(answers: AnswerQuery, claim: Once, text: str = PASSWORD.question) -> QueryResult:
    accepted = await answers.accept(Ask("ada", text), OPERATOR, claim)
    return await answers.start(accepted, Heard(), asyncio.Event())


async def rows(database: Database, table: Any) -> int:
    def count(records: Records) -> int:
        found = records.events._connection.scalar(select(func.count()).select_from(table))
        return int(found or 0)

    return await database.read(count)


# --- queries, on both databases -------------------------------------------------------------------


async def test_a_repeated_query_gets_the_stored_answer_and_stores_nothing(
    answers: AnswerQuery, database: Database
) -> None:
    first = await ask(answers, asking())
    before = [await rows(database, table) for table in (messages, analytics_events)]
    heard = Heard()
    again = await answers.accept(Ask("ada", PASSWORD.question), OPERATOR, asking())
    second = await answers.start(again, heard, asyncio.Event())
    assert msgspec.json.encode(second) == msgspec.json.encode(first)
    assert heard.names == ["analysis", "passages", "token"]
    assert heard.text == first.response
    assert [await rows(database, table) for table in (messages, analytics_events)] == before


async def test_a_key_of_another_request_is_refused(
    answers: AnswerQuery, database: Database
) -> None:
    await ask(answers, asking())
    with pytest.raises(KeyReused):
        await ask(answers, asking("What is your refund policy?"), "What is your refund policy?")
    assert await rows(database, messages) == 2


async def test_the_same_key_of_somebody_else_is_another_key(answers: AnswerQuery) -> None:
    first = await ask(answers, asking())
    second = await ask(answers, asking(owner="key:other"))
    assert first.message_id != second.message_id


async def test_a_query_under_way_is_not_begun_again(
    answers: AnswerQuery, database: Database
) -> None:
    accepted = await answers.accept(Ask("ada", PASSWORD.question), OPERATOR, asking())
    with pytest.raises(UnderWay) as told:
        await answers.accept(Ask("ada", PASSWORD.question), OPERATOR, asking())
    assert told.value.retry_after >= 1
    result = await answers.start(accepted, Heard(), asyncio.Event())
    again = await ask(answers, asking())
    assert again.message_id == result.message_id
    assert await rows(database, messages) == 2


async def test_of_many_at_once_one_is_answered(answers: AnswerQuery, database: Database) -> None:
    async def one() -> str:
        while True:
            try:
                return (await ask(answers, asking())).message_id
            except UnderWay:
                await asyncio.sleep(0.01)

    told = await asyncio.gather(*(one() for _ in range(12)))
    assert len(set(told)) == 1
    assert await rows(database, messages) == 2


async def crash(database: Database, *, lease: bool) -> None:
    """What a process that ended leaves: after a start, messages are marked; elsewhere the lease
    runs out."""

    def work(records: Records) -> None:
        if lease:
            then = datetime.now(UTC) - timedelta(seconds=1)
            records.events._connection.execute(
                update(idempotency_keys).values(lease_expires_at=then)
            )
        else:
            now = datetime.now(UTC)
            records.messages.fail_received(now, now)

    await database.write(work)


@pytest.mark.parametrize("lease", [True, False])
async def test_a_retry_after_a_crash_goes_on_with_the_accepted_message(
    database: Database, lease: bool
) -> None:
    dead = make_answers(database)
    accepted = await dead.accept(Ask("ada", PASSWORD.question), OPERATOR, asking())
    alive = make_answers(database)
    with pytest.raises(UnderWay):
        await alive.accept(Ask("ada", PASSWORD.question), OPERATOR, asking())
    await crash(database, lease=lease)
    result = await ask(alive, asking())
    stored = await database.read(lambda records: records.messages.list(result.conversation_id))
    assert [m.id for m in stored] == [accepted.message.id, result.message_id]
    assert [m.state for m in stored] == ["answered", "sent"]
    # The first process was only slow: what it comes to is not told beside the other answer.
    late = await dead.start(accepted, Heard(), asyncio.Event())
    assert late.message_id == result.message_id
    assert await rows(database, messages) == 2
    assert await rows(database, analytics_events) == 2


async def test_a_query_whose_answer_could_not_be_stored_is_taken_up_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = make_answers(database)
    accepted = await answers.accept(Ask("ada", PASSWORD.question), OPERATOR, asking())
    write = database.write

    async def full(_: Any) -> Any:
        raise StorageUnavailable("told to fail")

    monkeypatch.setattr(database, "write", full)
    with pytest.raises(StorageUnavailable):
        await answers.start(accepted, Heard(), asyncio.Event())
    monkeypatch.setattr(database, "write", write)
    result = await ask(answers, asking())
    assert result.conversation_id == accepted.conversation.id
    assert await rows(database, messages) == 2


async def test_what_was_refused_is_forgotten(answers: AnswerQuery, database: Database) -> None:
    with pytest.raises(NotFound):
        await answers.accept(Ask("ada", PASSWORD.question, "nothing"), OPERATOR, asking())
    assert await rows(database, idempotency_keys) == 0
    await ask(answers, asking())


async def test_keys_expire_and_are_removed(database: Database) -> None:
    answers = make_answers(database, hours=1e-7)
    first = await ask(answers, asking())
    await ask(answers, asking(key="other"))
    assert await rows(database, idempotency_keys) == 1
    second = await ask(answers, asking())
    assert first.message_id != second.message_id


async def test_a_forgotten_user_is_forgotten_here_too(
    answers: AnswerQuery, database: Database
) -> None:
    await ask(answers, asking())
    await Users(database).forget(OPERATOR, "ada")
    assert await rows(database, idempotency_keys) == 0


# --- answers with a secret, by processes that meet ------------------------------------------------


async def make_key(database: Database, claim: Claim) -> NewKey:
    """What the API does with such a POST, once it is claimed."""
    CURRENT.set(claim)
    return await Access(database).create_key("agent")


async def begin(database: Database, claim: Claim) -> Kept | None:
    """Claim a request, as a process of its own."""
    return await Idempotency(database, 24.0).begin(claim)


async def test_of_two_processes_that_get_a_request_at_once_one_carries_it_out(
    database: Database, database_url: str
) -> None:
    claim = Claim(asking())
    async with halted(database_url, lambda rival: begin(rival, claim)) as first:
        second = asyncio.create_task(begin(database, Claim(asking())))
        await met(database_url, second)
    assert first.result() is None
    with pytest.raises(UnderWay):
        await second
    await make_key(database, claim)
    with pytest.raises(Conflict, match="told only once") as told:
        await begin(database, Claim(asking()))
    assert not isinstance(told.value, UnderWay)
    assert await rows(database, api_keys) == 1


async def test_of_two_that_take_over_from_the_dead_one_carries_it_out(
    database: Database, database_url: str
) -> None:
    assert await begin(database, Claim(asking())) is None
    await crash(database, lease=True)
    async with aclosing(Database(database_url)) as rival:
        # It has seen that the lease ran out, and not taken it over yet.
        taking = begin(rival, Claim(asking()))
        async with stopped(IdempotencyRepository, "hold", taking) as first:
            second = asyncio.create_task(begin(database, Claim(asking())))
            await met(database_url, second)
        assert first.result() is None
        with pytest.raises(UnderWay):
            await second


async def test_whoever_is_late_with_an_answer_is_not_taken_for_dead(
    database: Database, database_url: str
) -> None:
    """Its lease has run out, but what it did is about to be committed."""
    claim = Claim(asking())
    assert await begin(database, claim) is None
    await crash(database, lease=True)
    async with halted(database_url, lambda rival: make_key(rival, claim)):
        second = asyncio.create_task(begin(database, Claim(asking())))
        await met(database_url, second)
    with pytest.raises(Conflict, match="told only once"):
        await second
    assert await rows(database, api_keys) == 1


async def test_whoever_comes_back_after_another_took_over_changes_nothing(
    database: Database,
) -> None:
    late, taken = Claim(asking()), Claim(asking())
    assert await begin(database, late) is None
    await crash(database, lease=True)
    assert await begin(database, taken) is None
    with pytest.raises(UnderWay):
        await make_key(database, late)
    idempotency = Idempotency(database, 24.0)
    await idempotency.finish(late, 201, "{}")
    await idempotency.give_up(late)
    assert await rows(database, api_keys) == 0
    assert (await make_key(database, taken)).key
    assert await rows(database, api_keys) == 1
    with pytest.raises(Conflict, match="told only once"):
        await begin(database, Claim(asking()))


# --- too many -------------------------------------------------------------------------------------


async def test_more_queries_than_the_process_takes_are_not_stored(
    sqlite_database: Database,
) -> None:
    answers = make_answers(sqlite_database, ScriptedModel(["word " * 8], delay=0.05), limit=3)
    under_way = []
    for number in range(3):
        accepted = await answers.accept(Ask(f"user-{number}", PASSWORD.question), OPERATOR)
        under_way.append(answers.start(accepted, Heard(), asyncio.Event()))
    with pytest.raises(RateLimited) as told:
        await answers.accept(Ask("late", PASSWORD.question), OPERATOR)
    assert 1 <= told.value.retry_after <= 30
    assert await rows(sqlite_database, messages) == 3
    await asyncio.gather(*under_way)
    await answers.start(
        await answers.accept(Ask("late", PASSWORD.question), OPERATOR), Heard(), asyncio.Event()
    )


async def test_one_conversation_does_not_take_all_places(sqlite_database: Database) -> None:
    answers = make_answers(sqlite_database, ScriptedModel(["word " * 8], delay=0.05))
    first = await answers.accept(Ask("ada", PASSWORD.question), OPERATOR)
    under_way = [answers.start(first, Heard(), asyncio.Event())]
    again = Ask("ada", PASSWORD.question, first.conversation.id)
    for _ in range(CONVERSATION_QUEUE - 1):
        accepted = await answers.accept(again, OPERATOR)
        under_way.append(answers.start(accepted, Heard(), asyncio.Event()))
    with pytest.raises(RateLimited):
        await answers.accept(again, OPERATOR)
    other = await answers.accept(Ask("bob", PASSWORD.question), Principal("customer", "key:bob"))
    under_way.append(answers.start(other, Heard(), asyncio.Event()))
    await asyncio.gather(*under_way)


# --- over HTTP ------------------------------------------------------------------------------------


async def post(desk: Desk, path: str, body: Any, who: str = "customer", **more: str) -> Any:  # noqa: F811
    headers = desk.keys[who] | KEY | more
    return await desk.send("POST", f"{API}{path}", headers, json=body)


QUESTION = {"user_id": "ada", "message": "How do I reset my password?"}


async def test_the_answer_is_the_same_to_the_byte(desk: Desk) -> None:  # noqa: F811
    first = await post(desk, "/query", QUESTION)
    second = await post(desk, "/query", QUESTION)
    assert (first.status_code, second.status_code) == (200, 200)
    assert second.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    other = await post(desk, "/query", QUESTION | {"message": "Thank you!"})
    assert_problem(other, 422, "idempotency_key_reused")
    assert (await post(desk, "/query/stream", QUESTION)).status_code == 422
    assert (await post(desk, "/query", QUESTION, "other")).json() != first.json()
    counts = (await desk.send("GET", f"{API}/stats", desk.keys["admin"])).json()
    assert counts["queries"] == 2


async def test_a_stream_is_told_again(desk: Desk) -> None:  # noqa: F811
    first = dict(read_events((await post(desk, "/query/stream", QUESTION)).text.splitlines()))
    told = await post(desk, "/query/stream", QUESTION)
    events = [*read_events(told.text.splitlines())]
    assert [name for name, _ in events] == ["analysis", "passages", "token", "answer"]
    assert dict(events)["answer"] == first["answer"]
    assert dict(events)["token"]["text"] == first["answer"]["response"]


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "schl\xfcssel"])
async def test_odd_keys_are_refused(desk: Desk, key: str) -> None:  # noqa: F811
    for path in ("/query", "/feedback"):
        headers = {**desk.keys["customer"], "Idempotency-Key": key.encode("latin-1")}
        answer = await desk.client.post(f"{API}{path}", headers=headers, json=QUESTION)
        assert_problem(answer, 400, "invalid_input")


Broken = Callable[..., Any]


async def test_a_change_and_its_answer_are_kept_in_one_transaction(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A crash right behind the commit, before anything was answered: the retry is told what was
    done, and it was done once."""
    mine = await desk.ask(desk.keys["customer"])
    path = f"/conversations/{mine['conversation_id']}/escalate"
    body = {"reason": "please call me"}
    begun = desk.appliance.conversations.escalate

    async def dies(*given: Any) -> None:
        await begun(*given)
        raise RuntimeError("the process died here")

    monkeypatch.setattr(desk.appliance.conversations, "escalate", dies)
    assert (await post(desk, path, body)).status_code == 500
    monkeypatch.setattr(desk.appliance.conversations, "escalate", begun)
    told = await post(desk, path, body)
    assert told.status_code == 200
    assert told.headers["idempotent-replayed"] == "true"
    assert (await post(desk, path, body)).content == told.content
    said = [m["content"] for m in await desk.messages(mine["conversation_id"])]
    assert said.count("please call me") == 1
    assert told.json()["response"] in said


async def test_thumbs_are_given_once_and_refusals_are_not_kept(desk: Desk) -> None:  # noqa: F811
    unknown = await post(desk, "/feedback", {"message_id": "nothing", "rating": "up"})
    assert_problem(unknown, 404, "not_found")
    mine = await desk.ask(desk.keys["customer"])
    body = {"message_id": mine["message_id"], "rating": "up"}
    first = await post(desk, "/feedback", body)
    second = await post(desk, "/feedback", body)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.content == first.content
    assert second.headers["content-type"].partition(";")[0] == "application/json"
    events = await rows(desk.appliance.database, analytics_events)
    assert await rows(desk.appliance.database, feedback) == 1
    assert (await post(desk, "/feedback", body)).status_code == 201
    assert await rows(desk.appliance.database, analytics_events) == events


SECRETS: dict[str, tuple[str, dict[str, Any]]] = {
    "key.create": ("/keys", {"role": "agent"}),
    "webhook.create": ("/webhooks/", HOOK),
    "webhook.rotate_secret": ("/webhooks/{webhook}/rotate-secret", {"overlap_hours": 1}),
    "session.open": ("/login", {"key": "{admin}"}),
}


@pytest.mark.parametrize("action", SECRETS)
async def test_a_secret_is_told_once_to_however_many_ask_at_once(
    desk: Desk,  # noqa: F811
    action: str,
) -> None:
    """The retries learn that it was told, and find it nowhere: it is not kept for them."""
    path, body = SECRETS[action]
    if "{webhook}" in path:
        made = await desk.send("POST", f"{API}/webhooks/", desk.keys["admin"], json=HOOK)
        path = path.format(webhook=made.json()["id"])
    elif "key" in body:
        body = {"key": desk.keys["admin"]["Authorization"].removeprefix("Bearer ")}
    page = {"X-Requested-With": "appliance-staff"}
    database = desk.appliance.database
    entries = lambda: database.read(lambda r: r.audit.list(100, action=action))  # noqa: E731
    before = await entries()
    answers = await asyncio.gather(*(post(desk, path, body, "admin", **page) for _ in range(5)))
    told, *refused = sorted(answers, key=lambda answer: answer.status_code)
    assert told.is_success, told.text
    assert {answer.status_code for answer in refused} == {409}
    for _ in range(2):
        assert_problem(await post(desk, path, body, "admin", **page), 409, "conflict")
    assert len(await entries()) == len(before) + 1
    assert await rows(database, idempotency_keys) == 1
    assert await database.read(run(select(idempotency_keys.c.status))) == told.status_code
    assert await database.read(run(select(idempotency_keys.c.body))) is None


async def test_a_request_under_way_says_when_to_come_back(desk: Desk) -> None:  # noqa: F811
    desk.model.delay = 0.1
    first = asyncio.create_task(post(desk, "/query", QUESTION))
    await reach(lambda: desk.model.calls)
    again = await post(desk, "/query", QUESTION)
    assert_problem(again, 409, "under_way")
    assert int(again.headers["retry-after"]) >= 1
    done = await first
    assert (await post(desk, "/query", QUESTION)).content == done.content


async def test_a_key_without_a_principal_opens_nothing(desk: Desk) -> None:  # noqa: F811
    answer = await desk.send("POST", f"{API}/feedback", KEY, json={})
    assert_problem(answer, 401, "unauthenticated")
    assert await rows(desk.appliance.database, idempotency_keys) == 0

"""The learning loop with the real embedding model: corrected, learnt in the background, judged,
in charge, rolled back."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from appliance.domain.examples import Example
from appliance.errors import Conflict, Forbidden, InvalidInput, NotFound
from appliance.knowledge.embedding import Embedder, EncodingBridge, packaged_model
from appliance.knowledge.onnx_graph import load_embedder
from appliance.operations.locks import hold_lock
from appliance.services import learning
from appliance.services.access import OPERATOR, Principal
from appliance.services.corrections import Corrections, read_labelled
from appliance.services.golden import GoldenSet
from appliance.services.learning import Learning, Retraining
from appliance.services.users import Users
from appliance.settings import HOME
from appliance.storage import Database, Records
from appliance.storage.records import Labels, Message
from appliance.understanding.current import CurrentReader
from appliance.understanding.learnt import as_shipped
from appliance.understanding.reader import load_or_train
from appliance.understanding.vectors import VectorFile
from appliance.understanding.versions import HeadVersions

pytestmark = pytest.mark.anyio

AGENT = Principal("agent", "key:agent")
CUSTOMER = Principal("customer", "key:shop")

SHIPPED = (HOME / "kb" / "examples.jsonl").read_text("utf-8").splitlines()[::4]
"""A part of what is shipped: enough to stand its ground, little to encode."""
ROWS = [json.loads(line) for line in SHIPPED]

STRANGE = "Does the turbine at the northern ridge cast shadows on the school?"
NEAR = (
    STRANGE.lower(),
    f"Hello, {STRANGE}",
    f"{STRANGE} Thank you.",
    "Does the turbine at the north ridge cast a shadow on the school?",
)


class Desk:
    """What the composition root would join, around a file of shipped examples of the test's own."""

    def __init__(self, database: Database, embedder: Embedder, folder: Path) -> None:
        self.database = database
        self.bridge = EncodingBridge(embedder)
        self.corrections = Corrections(database)
        self.encoded: list[str] = []
        shipped = folder / "examples.jsonl"
        self.versions = HeadVersions(folder / "heads")
        vectors = VectorFile(folder / "heads" / "vectors.npz", embedder.fingerprint)
        reader = load_or_train(
            shipped,
            folder / "heads" / "shipped.npz",
            vectors.keeping(embedder.encode),
            embedder.fingerprint,
        )
        self.reader = CurrentReader(as_shipped(reader.trained), self.versions, "1:test")
        self.golden = GoldenSet(database, shipped)
        self.learning = Learning(database, self.versions, shipped, hold_lock)
        self.retraining = Retraining(
            database,
            self.versions,
            shipped,
            hold_lock,
            encoder=self.bridge,
            current=self.reader,
            vectors=vectors,
        )
        encode = self.bridge.encode

        async def noted(texts: list[str]) -> object:
            self.encoded += texts
            return await encode(texts)

        self.bridge.encode = noted  # type: ignore[method-assign, assignment]

    async def ask(self, text: str, user: str = "ada") -> Message:
        def work(records: Records) -> Message:
            records.users.ensure(user)
            conversation = records.conversations.create(user, "key:shop", text[:40])
            return records.messages.add(conversation.id, "customer", text, "answered")

        return await self.database.write(work)

    async def correct(self, text: str, user: str = "ada", **said: str) -> Message:
        message = await self.ask(text, user)
        labels: Labels = said  # type: ignore[assignment]
        await self.corrections.correct(AGENT, message.id, labels)
        return message

    def category(self, text: str, votes: dict[str, float] | None = None) -> str:
        (vector,) = self.bridge.embedder.encode([text])
        return self.reader.category(text, vector, votes=votes or {})[0]

    async def switches(self) -> list[tuple[str, str, int, int]]:
        """Who put which version in charge, oldest first."""
        entries = await self.database.read(lambda records: records.audit.list(20))
        return [
            (e.actor, e.action, e.details["from"], e.details["to"])
            for e in reversed(entries)
            if e.target == "heads"
        ]

    async def close(self) -> None:
        await asyncio.to_thread(self.retraining.close)
        self.bridge.close()


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return load_embedder(packaged_model(), tmp_path_factory.mktemp("embeddings"))


@pytest.fixture(scope="module")
def template(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder after its first start."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "examples.jsonl").write_text("\n".join(SHIPPED), "utf-8")
    Desk(Database(f"sqlite:///{folder / 'none.db'}"), embedder, folder).bridge.close()
    return folder


@pytest.fixture
async def desk(
    sqlite_database: Database, embedder: Embedder, template: Path, tmp_path: Path
) -> AsyncIterator[Desk]:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    desk = Desk(sqlite_database, embedder, tmp_path)
    yield desk
    await desk.close()


async def until(holds: Callable[[], bool], patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "LEARN_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(learning, "LEARN_QUIET_SECONDS", 0.2)


@asynccontextmanager
async def watching(desk: Desk) -> AsyncIterator[None]:
    task = asyncio.create_task(desk.retraining.watch())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


# --- learning -------------------------------------------------------------------------------------


async def test_one_correction_is_learnt_whatever_the_articles_vote_for(desk: Desk) -> None:
    others = [row["text"] for row in ROWS if row.get("category")]
    before = [desk.category(text) for text in others]
    votes = {"Technical": 0.99, "Account": 0.01}
    assert desk.category(STRANGE, votes) == "Technical"
    await desk.correct(STRANGE, category="Account")
    done = await desk.retraining.retrain()
    assert (done.version, done.switched) == (1, True)
    assert [verdict.head for verdict in done.verdicts] == ["category"]
    assert [desk.category(text, votes) for text in (STRANGE, *NEAR)] == ["Account"] * 5
    same = [old == desk.category(text) for old, text in zip(before, others, strict=True)]
    assert sum(same) >= 0.97 * len(others)
    assert await desk.switches() == [("appliance", "learn.promote", 0, 1)]


async def test_only_new_texts_are_encoded(desk: Desk) -> None:
    await desk.correct(STRANGE, category="General")
    await desk.retraining.retrain()
    assert desk.encoded == [STRANGE]
    await desk.correct(NEAR[3], category="General")
    await desk.retraining.retrain()
    assert desk.encoded == [STRANGE, NEAR[3]]


async def test_corrections_are_learnt_in_the_background_and_without_holding_anybody_up(
    desk: Desk, hurried: None
) -> None:
    async with watching(desk):
        for number, text in enumerate((STRANGE, *NEAR)):
            await desk.correct(f"{text} {number}", category="General")
        await until(lambda: desk.reader.version == 1)
        assert desk.category(f"{STRANGE} 0") == "General"
        # One candidate for all of them: each correction put it off.
        status = await desk.learning.status()
        assert status.latest is not None
        assert status.latest.verdicts[0]["taught"] == 5
        assert not status.pending


async def test_another_process_is_noticed_at_the_next_query(
    desk: Desk, sqlite_database: Database, embedder: Embedder, tmp_path: Path
) -> None:
    other = Desk(sqlite_database, embedder, tmp_path)
    await other.correct(STRANGE, category="Account")
    await other.retraining.retrain()
    assert desk.category(STRANGE) == "Account"
    await desk.learning.rollback(OPERATOR)
    assert other.reader.version == 0
    await other.close()


# --- rolling back ---------------------------------------------------------------------------------


async def test_a_rollback_stays_until_something_new_is_said(desk: Desk, hurried: None) -> None:
    shipped = desk.reader.fingerprint
    await desk.correct(STRANGE, category="Account")
    async with watching(desk):
        await until(lambda: desk.reader.version == 1)
        assert await desk.learning.rollback(OPERATOR) == 0
        assert desk.reader.fingerprint == shipped
        await asyncio.sleep(1.0)
        assert desk.reader.version == 0
        await desk.correct("The ballot on the turbine is unfair", category="General")
        await until(lambda: desk.reader.version == 2)
    assert desk.category(STRANGE) == "Account"
    assert await desk.switches() == [
        ("appliance", "learn.promote", 0, 1),
        ("operator", "learn.rollback", 1, 0),
        ("appliance", "learn.promote", 0, 2),
    ]
    assert await desk.learning.rollback(OPERATOR, 1) == 1
    assert desk.reader.version == 1


async def test_what_cannot_be_rolled_back_to(desk: Desk) -> None:
    with pytest.raises(Conflict, match="in charge already"):
        await desk.learning.rollback(OPERATOR)
    with pytest.raises(NotFound):
        await desk.learning.rollback(OPERATOR, 7)
    with pytest.raises(Forbidden):
        await desk.learning.rollback(AGENT, 0)
    for number, text in enumerate((STRANGE, "The ballot is unfair"), start=1):
        await desk.correct(text, category="Account")
        assert (await desk.retraining.retrain()).version == number
    desk.versions.path(1).write_bytes(b"damaged")
    with pytest.raises(Conflict, match="damaged"):
        await desk.learning.rollback(OPERATOR, 1)
    assert desk.reader.version == 2


async def test_one_training_at_a_time(desk: Desk) -> None:
    await desk.correct(STRANGE, category="Account")
    desk.versions.folder.mkdir(exist_ok=True)
    with hold_lock(desk.versions.lock) as free:
        assert free
        with pytest.raises(Conflict, match="right now"):
            await desk.retraining.retrain()
        with pytest.raises(Conflict, match="right now"):
            await desk.learning.rollback(OPERATOR)
    assert (await desk.retraining.retrain()).switched


# --- what is refused, damaged, forgotten ----------------------------------------------------------


async def test_a_refused_candidate_says_why_and_is_not_tried_again(
    desk: Desk, hurried: None
) -> None:
    wrong = {"Technical": "Billing", "Billing": "Account", "Account": "General"}
    wrong["General"] = "Technical"
    lies = [
        Example(f"{row['text']} please", wrong[row["category"]])  # type: ignore[arg-type]
        for row in ROWS
        if row.get("category")
    ][:200]
    await desk.corrections.add(OPERATOR, lies)
    async with watching(desk):
        await until(lambda: desk.versions.standing().latest is not None)
        latest = desk.versions.standing().latest
        await asyncio.sleep(1.0)
        assert desk.versions.standing().latest == latest
    status = await desk.learning.status()
    assert (status.version, status.pending, desk.reader.version) == (0, False, 0)
    assert status.latest is not None
    assert status.latest.version is None
    assert "shipped examples" in status.latest.verdicts[0]["why"]
    assert await desk.switches() == []


async def test_a_damaged_file_costs_what_was_learnt_until_the_next_training(desk: Desk) -> None:
    shipped = desk.reader.fingerprint
    await desk.correct(STRANGE, category="Account")
    await desk.retraining.retrain()
    desk.versions.path(1).write_bytes(b"damaged")
    desk.versions.write(desk.versions.standing())
    with capture_logs() as logs:
        assert desk.reader.fingerprint == shipped
    assert ("heads_fall_back", "warning") in [(each["event"], each["log_level"]) for each in logs]
    assert not (await desk.learning.status()).usable
    done = await desk.retraining.retrain()
    assert (done.version, desk.category(STRANGE)) == (2, "Account")


async def test_a_forgotten_customer_is_forgotten_by_every_version(desk: Desk) -> None:
    await desk.correct(STRANGE, "bob", category="Account")
    await desk.correct("The ballot is unfair", category="General")
    await desk.retraining.retrain()
    vector = desk.bridge.embedder.encode([STRANGE])[0].tobytes()
    files = [desk.versions.path(1), desk.versions.folder / "vectors.npz"]
    assert all(vector in file.read_bytes() for file in files)
    await Users(desk.database).forget(OPERATOR, "bob")
    assert (await desk.learning.status()).pending
    await desk.retraining.retrain()
    for file in desk.versions.folder.glob("*.npz"):
        assert vector not in file.read_bytes(), file
    assert await desk.learning.rollback(OPERATOR) == 1


async def test_taking_all_back_returns_to_the_shipped_heads(desk: Desk) -> None:
    shipped = desk.reader.fingerprint
    await desk.correct(STRANGE, "bob", category="Account")
    await desk.retraining.retrain()
    await Users(desk.database).forget(OPERATOR, "bob")
    done = await desk.retraining.retrain()
    assert (done.version, done.switched) == (0, True)
    assert desk.reader.fingerprint == shipped


async def test_a_golden_text_leaves_the_training(desk: Desk) -> None:
    await desk.correct(STRANGE, category="Account")
    await desk.retraining.retrain()
    votes = {"Technical": 0.99, "Account": 0.01}
    assert desk.category(STRANGE, votes) == "Account"
    await desk.golden.add(OPERATOR, [{"text": STRANGE, "category": "Account"}])
    status = await desk.learning.status()
    assert (status.pending, status.golden) == (True, 1)
    await desk.retraining.retrain()
    assert desk.category(STRANGE, votes) == "Technical"


# --- corrections ----------------------------------------------------------------------------------


async def test_an_answer_stands_for_the_message_it_answers(desk: Desk) -> None:
    message = await desk.ask("Where is it?")
    answer, note = await desk.database.write(
        lambda records: (
            records.messages.add(
                message.conversation_id, "assistant", "Here.", "sent", reply_to=message.id
            ),
            records.messages.add(message.conversation_id, "agent", "By hand.", "sent"),
        )
    )
    done = await desk.corrections.correct(AGENT, answer.id, {"category": "Account"})
    assert (done.message_id, done.text) == (message.id, "Where is it?")
    with pytest.raises(Conflict):
        await desk.corrections.correct(AGENT, note.id, {"category": "Account"})
    with pytest.raises(NotFound):
        await desk.corrections.correct(AGENT, "0" * 32, {"category": "Account"})
    with pytest.raises(InvalidInput):
        await desk.corrections.correct(AGENT, message.id, {})
    with pytest.raises(Forbidden):
        await desk.corrections.correct(CUSTOMER, message.id, {"category": "Account"})


async def test_an_import_is_stored_without_secrets(desk: Desk) -> None:
    card = Example("My card 4111 1111 1111 1111 was refused", "Billing")
    assert (await desk.corrections.add(OPERATOR, [card, card])).added == 1
    (row,) = await desk.database.read(lambda records: records.examples.list())
    assert row.text == "My card [card] was refused"
    with pytest.raises(Forbidden):
        await desk.corrections.add(AGENT, [card])


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "line 3"),
        ('{"text": "x"}', "line 3: a category"),
        ('{"text": "\\u200b", "category": "Billing"}', '"text"'),
        ('{"text": "x", "category": "Sales"}', "Sales"),
        ('{"text": "x", "sentiment": "Sad"}', "Sad"),
        ('{"category": "Billing"}', "text"),
        ("[]", "line 3"),
    ],
)
def test_a_bad_line_is_named_before_anything_is_stored(
    line: str, named: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(f'{{"text": "fine", "category": "Billing"}}\n\n{line}\n', "utf-8")
    with pytest.raises(InvalidInput) as error:
        read_labelled(file)
    assert "line 3" in error.value.detail
    assert named in error.value.detail


def test_a_file_without_examples_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_bytes(b"\n\n")
    with pytest.raises(InvalidInput, match="no examples"):
        read_labelled(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="UTF-8"):
        read_labelled(file)

"""A desk to back up: a data folder and a database of either kind, filled through the services."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from appliance.knowledge.embedding import EncodingBridge, HashedEmbedder
from appliance.llm.scripted import ScriptedModel
from appliance.operations.secrets import load_secret
from appliance.services.answer_query import AnswerQuery
from appliance.services.knowledge import save_articles
from appliance.settings import Settings, ensure_folders, load_settings
from appliance.storage import Database, dumps, migrate, snapshots
from appliance.storage.engines import parse_url, sqlite_file
from appliance.storage.snapshots import Facts
from tests.builders import PASSWORD, REFUND, SMALL_BASE, settle
from tests.integration.test_answer_query import Desk

QUESTIONS = (PASSWORD.question, REFUND.question)
WRITERS = 4


def settings_of(folder: Path, url: str, **changes: object) -> Settings:
    """A data folder under ``folder``; an SQLite database lies in it, whatever ``url`` says."""
    given: dict[str, object] = {"data_dir": folder / "data", "disk_reserve_mib": 0}
    if not url.startswith("sqlite"):
        given["database_url"] = url
    return load_settings(**{**given, **changes})


def found(settings: Settings) -> Facts:
    """What the database holds now."""
    url = parse_url(settings.resolved_database_url)
    file = sqlite_file(url)
    if file is None:
        return dumps.read_facts(url)
    with snapshots.reading_copy(_folded(file)) as connection:
        return snapshots.facts(connection)


def _folded(file: Path) -> Path:
    """The file as a copy into which the log is folded."""
    copy = file.with_name(f".copy-{hashlib.sha256(str(file).encode()).hexdigest()[:8]}.db")
    copy.unlink(missing_ok=True)
    snapshots.copy_sqlite(file, copy)
    return copy


def tree(folder: Path) -> dict[str, str]:
    """Every file of a folder, locks and the comparing copies aside, by its hash."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock" and not path.name.startswith(".copy-")
    }


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.resolved_database_url)
    try:
        yield database
    finally:
        await database.aclose()


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Desk]:
    """The services of a desk that is made where there is none, with secrets and learned heads."""
    ensure_folders(settings)
    migrate.upgrade(settings.resolved_database_url)
    for name in ("webhooks", "visitors"):
        load_secret(settings.data_dir, name)
    heads = settings.data_dir / "heads"
    heads.mkdir(exist_ok=True)
    (heads / "learned-0001.npz").write_bytes(b"numbers")
    (heads / "learning.json").write_text('{"in_charge": 0}')
    bridge = EncodingBridge(HashedEmbedder())
    async with opened(settings) as database:
        await save_articles(database, SMALL_BASE, replace=True)
        desk = Desk(database, bridge, settings.data_dir / "index")
        desk.with_model(ScriptedModel(lambda _: PASSWORD.answer))
        yield desk
        await desk.answers.drain()
    bridge.close()


@dataclass
class Customers:
    """Writers that ask until they are told to stop; remember what they were answered."""

    answers: AnswerQuery
    desk: Desk
    answered: dict[str, str] = field(default_factory=dict)
    """The answer's message by the id of its conversation."""

    async def ask(self, count: int) -> None:
        """So many conversations, by several writers at once."""
        numbers = iter(range(count))
        await asyncio.gather(*(self._write(numbers) for _ in range(WRITERS)))

    async def keep_asking(self, stop: asyncio.Event) -> None:
        async def more() -> None:
            while not stop.is_set():
                await self._one(f"late-{len(self.answered)}")
                await settle()

        await asyncio.gather(*(more() for _ in range(WRITERS)))

    async def _write(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            await self._one(f"customer-{number}")

    async def _one(self, user: str) -> None:
        text = QUESTIONS[len(self.answered) % len(QUESTIONS)]
        result = await self.desk.ask(text, user=user)
        self.answered[result.conversation_id] = result.message_id

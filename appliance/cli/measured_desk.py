"""The desk that a measurement looks at: the one that is there, or one made for the purpose."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli.output import note

if TYPE_CHECKING:
    from appliance.bootstrap import Appliance
    from appliance.settings import Settings


@asynccontextmanager
async def measured_desk(
    settings: Settings, kb: Path | None, *, no_model: bool
) -> AsyncIterator[Appliance]:
    """An appliance with its database checked, not yet prepared.

    :param kb: a knowledge file that it knows instead of the desk's own articles; it has learnt
        nothing then, and is forgotten afterwards.
    :param no_model: its language model is down.
    :raises KnowledgeFileError: the file cannot be imported.
    :raises StorageUnavailable: the desk's own database is not there or not migrated.
    """
    from appliance.bootstrap import Appliance
    from appliance.llm.scripted import ScriptedModel

    with ExitStack() as stack:
        if kb is not None:
            settings = stack.enter_context(_apart(settings))
        appliance = Appliance(settings, model=ScriptedModel(fail_after=0) if no_model else None)
        try:
            if kb is not None:
                await _learn(appliance, kb)
            await appliance.database.check()
            yield appliance
        finally:
            await appliance.aclose()


def take_over(made_in: Path, folder: Path) -> None:
    """Let a new data folder have what another made of the embedding model and of the shipped
    examples: making it again takes long and comes to the same."""
    if (made := made_in / "embeddings").is_dir() and not (folder / "embeddings").exists():
        (folder / "embeddings").symlink_to(made)
    if (shipped := made_in / "heads" / "shipped.npz").is_file():
        (folder / "heads").mkdir(exist_ok=True)
        shutil.copy(shipped, folder / "heads")


@contextmanager
def _apart(settings: Settings) -> Iterator[Settings]:
    """The same settings over an empty data folder, with the engine and the weights of the desk."""
    from appliance.llm import weights
    from appliance.storage.migrate import upgrade

    with tempfile.TemporaryDirectory(prefix="appliance-eval-") as name:
        folder = Path(name)
        take_over(settings.data_dir, folder)
        own = settings.model_copy(
            update={
                "data_dir": folder,
                "runtime_dir": settings.sockets,
                "database_url": "",
                "model": weights.active(settings).name,
            }
        )
        upgrade(own.resolved_database_url)
        yield own


async def _learn(appliance: Appliance, kb: Path) -> None:
    from appliance.knowledge.importers import load_faqs
    from appliance.services.knowledge import save_articles

    loaded = load_faqs(kb)
    change = await save_articles(
        appliance.database, loaded.articles, replace=True, hidden=loaded.hidden
    )
    if change.quarantined:
        note(
            f"{len(change.quarantined)} sentences of {kb.name} are kept out, as in an import; "
            f"{len(change.withheld)} articles with them as a whole."
        )

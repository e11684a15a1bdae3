"""``appliance kb``: the knowledge base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from appliance.cli.output import (
    json_option,
    note,
    prepare,
    print_json,
    run,
    table,
    with_database,
)
from appliance.domain.policy import CATEGORIES

if TYPE_CHECKING:
    from appliance.storage.database import Database
    from appliance.storage.records import Quarantined

SHOWN_CHARS = 80


@click.group()
def kb() -> None:
    """Import, list and search articles."""


@kb.command("import")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option("--replace", is_flag=True, help="The files become the whole knowledge base.")
@json_option
def import_files(files: tuple[Path, ...], replace: bool, as_json: bool) -> None:
    """Import articles; the next query sees them, also in an appliance that is running."""
    from appliance.knowledge.importers import load_faqs

    loaded = [load_faqs(file) for file in files]
    articles = [article for each in loaded for article in each.articles]
    hidden = {key: found for each in loaded for key, found in each.hidden.items()}

    async def importing(database: Database) -> Any:
        from appliance.services.knowledge import save_articles

        return await save_articles(database, articles, replace=replace, hidden=hidden)

    change = with_database("kb", importing)
    if as_json:
        kept_out = ("quarantined", "withheld", "cleaned")
        # What nothing was kept out of is told as ever.
        print_json({k: v for k, v in asdict(change).items() if v or k not in kept_out})
        return
    click.echo(
        f"{change.added} added, {change.changed} changed, {change.removed} removed, "
        f"{change.unchanged} unchanged (version {change.version})."
    )
    if change.cleaned:
        note(f"Invisible characters were dropped from: {', '.join(change.cleaned)}.")
    if change.quarantined:
        click.echo(
            f"{len(change.quarantined)} sentences wait for an administrator's release, "
            f"{len(change.withheld)} articles with them as a whole:"
        )
        _show(change.quarantined)


@kb.command("list")
@json_option
def list_articles(as_json: bool) -> None:
    """List all articles."""

    async def listing(database: Database) -> Any:
        return await database.read(lambda records: records.knowledge.articles())

    articles = with_database("kb", listing)
    if as_json:
        print_json({"faqs": articles})
        return
    table(("id", "category", "question"), [(a.id, a.category, a.question) for a in articles])


@kb.command()
@click.argument("text")
@click.option("--limit", default=5, show_default=True, type=click.IntRange(1, 50))
@click.option("--category", type=click.Choice(CATEGORIES))
@json_option
def search(text: str, limit: int, category: str | None, as_json: bool) -> None:
    """Find passages for a text, best first."""
    settings = prepare("kb")

    async def searching() -> Any:
        from appliance.operations.client import RunningAppliance

        parameters = {"q": text, "limit": limit} | ({"category": category} if category else {})
        async with RunningAppliance.connect(settings) as running:
            if running is not None:
                return await running.get("/kb/search", **parameters)
        from appliance.bootstrap import Appliance

        appliance = Appliance(settings)
        try:
            await appliance.database.check()
            await appliance.prepare()
            found = await appliance.ready.knowledge.search(text, limit=limit, category=category)
            return {"items": [passage.as_result() for passage in found]}
        finally:
            await appliance.aclose()

    found = run(searching())
    if as_json:
        print_json(found)
        return
    if not found["items"]:
        note("The knowledge base is empty.")
    table(
        ("score", "id", "category", "question"),
        [(f"{p['score']:.3f}", p["id"], p["category"], p["title"]) for p in found["items"]],
    )


@kb.group()
def quarantine() -> None:
    """Sentences of articles that wait for an administrator."""


@quarantine.command("list")
@click.option(
    "--state",
    type=click.Choice(("held", "released", "removed", "all")),
    default="held",
    show_default=True,
)
@json_option
def list_quarantine(state: str, as_json: bool) -> None:
    """List sentences that were kept out of articles, and why."""

    async def listing(database: Database) -> Any:
        from appliance.services.access import OPERATOR
        from appliance.services.quarantine import Quarantine

        wanted: Any = None if state == "all" else state
        return await Quarantine(database).list(OPERATOR, wanted)

    found = with_database("kb", listing)
    if as_json:
        print_json({"items": found})
        return
    _show(found)


@quarantine.command()
@click.argument("quarantine_id", metavar="ID")
@json_option
def release(quarantine_id: str, as_json: bool) -> None:
    """Put a sentence back into its article; the next query sees it."""
    _decide(quarantine_id, "released", as_json)


@quarantine.command()
@click.argument("quarantine_id", metavar="ID")
@json_option
def remove(quarantine_id: str, as_json: bool) -> None:
    """Keep a sentence out for good, also when the article is imported again."""
    _decide(quarantine_id, "removed", as_json)


def _decide(quarantine_id: str, state: Literal["released", "removed"], as_json: bool) -> None:
    async def deciding(database: Database) -> Any:
        from appliance.services.access import OPERATOR
        from appliance.services.quarantine import Quarantine

        return await Quarantine(database).decide(OPERATOR, quarantine_id, state)

    decided = with_database("kb", deciding)
    if as_json:
        print_json(decided)
        return
    click.echo(f"The sentence of article {decided.article_id} is {decided.state}.")


def _show(sentences: Sequence[Quarantined]) -> None:
    """Sentences as a table, each on one line however it is written."""
    table(
        ("id", "article", "part", "reason", "state", "sentence"),
        [
            (
                s.id,
                s.article_id,
                s.part,
                s.reason,
                s.state,
                " ".join(s.sentence.split())[:SHOWN_CHARS],
            )
            for s in sentences
        ],
    )

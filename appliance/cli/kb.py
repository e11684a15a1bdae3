"""``appliance kb``: the knowledge base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from appliance.knowledge.importers import read_faqs

    articles = [article for file in files for article in read_faqs(file)]

    async def importing(database: Database) -> Any:
        from appliance.services.knowledge import save_articles

        return await save_articles(database, articles, replace=replace)

    change = with_database("kb", importing)
    if as_json:
        print_json(change)
        return
    click.echo(
        f"{change.added} added, {change.changed} changed, {change.removed} removed, "
        f"{change.unchanged} unchanged (version {change.version})."
    )


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

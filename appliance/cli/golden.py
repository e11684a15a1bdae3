"""``appliance golden``: the desk's own golden set, which ``appliance eval --desk`` measures on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from appliance.cli.output import json_option, note, print_json, table, with_database
from appliance.domain.policy import CATEGORIES, SENTIMENTS
from appliance.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from appliance.services.golden import GoldenSet
    from appliance.storage.database import Database

SHOWN_CHARS = 60


@click.group()
def golden() -> None:
    """Build and edit the desk's own golden set. Its texts never train."""


@golden.command()
@json_option
def build(as_json: bool) -> None:
    """Make items of articles' questions and of confirmed or corrected messages, in place of those
    built before."""
    built = _with_set(lambda found, who: found.build(who))
    if as_json:
        print_json(built)
        return
    table(("source", "items"), sorted(built.items.items()))
    if built.training:
        note(f"{built.training} texts are left out because they train.")


@golden.command("list")
@json_option
def list_items(as_json: bool) -> None:
    """List the items; with --json as evaluation lines with their ids."""
    rows = _with_set(lambda found, who: found.rows())
    if as_json:
        print_json({"items": [{"id": r.id, **r.line, "source": r.source} for r in rows]})
        return
    table(
        ("id", "source", "category", "sentiment", "faq", "text"),
        [
            (
                row.id,
                row.source,
                row.line.get("category", "-"),
                row.line.get("sentiment", "-"),
                row.line.get("faq", "-"),
                " ".join(row.line["text"].split())[:SHOWN_CHARS],
            )
            for row in rows
        ],
    )


@golden.command()
@click.argument("text", required=False)
@click.option("--category", type=click.Choice(CATEGORIES))
@click.option("--sentiment", type=click.Choice(SENTIMENTS))
@click.option("--faq", metavar="ID", help="The article that answers it.")
@click.option("--source", default="added", show_default=True, help="What the item is filed under.")
@click.option(
    "--file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Add evaluation lines, JSONL.",
)
@json_option
def add(text: str | None, file: Path | None, source: str, as_json: bool, **stated: Any) -> None:
    """Add a TEXT with what is expected of it, or a --file."""
    said = {key: value for key, value in stated.items() if value is not None}
    if (text is None) == (file is None) or (file is not None and said):
        raise click.UsageError("Name a TEXT with what is expected of it, or a --file.")
    if file is not None:
        import msgspec

        from appliance.evaluation.golden import read_golden

        lines = [msgspec.to_builtins(item) for item in read_golden(file)]
    else:
        if not said:
            raise click.UsageError("Name a --category, a --sentiment or a --faq.")
        answerable = {"answerable": True} if "faq" in said else {}
        lines = [{"text": text, "source": source, **said, **answerable}]
    added = _with_set(lambda found, who: found.add(who, lines))
    if text is not None and added.training:
        raise InvalidInput("The shipped heads were trained on this text: it measures nothing.")
    if as_json:
        print_json(added)
        return
    click.echo(f"{added.added} added.")
    if added.training:
        note(f"{added.training} texts are left out: the shipped heads were trained on them.")


@golden.command()
@click.argument("item_id", metavar="ID", required=False)
@click.option("--source", help="Remove all items of this source instead.")
@json_option
def remove(item_id: str | None, source: str | None, as_json: bool) -> None:
    """Remove an item, or all of a source. What was built returns with the next building."""
    if (item_id is None) == (source is None):
        raise click.UsageError("Name an ID or a --source.")
    removed = _with_set(lambda found, who: found.remove(who, item_id=item_id, source=source))
    if as_json:
        print_json({"removed": removed})
    else:
        click.echo(f"{removed} removed.")


def _with_set(work: Callable[[GoldenSet, Any], Awaitable[Any]]) -> Any:
    async def working(database: Database) -> Any:
        from appliance.services.access import OPERATOR
        from appliance.services.golden import GoldenSet
        from appliance.settings import HOME

        return await work(GoldenSet(database, HOME / "kb" / "examples.jsonl"), OPERATOR)

    return with_database("golden", working)

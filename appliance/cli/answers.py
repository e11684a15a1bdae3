"""``appliance answers``: how answers came about, whether they come out the same, and whether their
records are what was written."""

from __future__ import annotations

import sys
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

if TYPE_CHECKING:
    from appliance.services.answer_records import Shown
    from appliance.services.answer_replay import Replay
    from appliance.storage.database import Database

LINE_CHARS = 60
"""Of a message in a list."""
SHORT = 12
"""Hexadecimal digits by which people tell digests apart."""


@click.group()
def answers() -> None:
    """Explain, replay and verify answers. ID is a record's number or a message's id."""


@answers.command("list")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1_000))
@json_option
def list_records(limit: int, as_json: bool) -> None:
    """List the latest records, newest first."""

    async def listing(database: Database) -> Any:
        from appliance.services.answer_records import AnswerRecords

        return await AnswerRecords(database).latest(limit)

    found = with_database("answers", listing)
    if as_json:
        print_json({"items": found})
        return
    table(
        ("record", "at", "message id", "outcome", "mode", "message"),
        [(r.record, r.at[:19], r.message_id, r.outcome, r.mode, _line(r.message)) for r in found],
    )


@answers.command()
@click.argument("name", metavar="ID")
@json_option
def show(name: str, as_json: bool) -> None:
    """Tell how an answer came about: what was asked, decided, found, said and cut, and by what."""

    async def showing(database: Database) -> Any:
        from appliance.services.answer_records import AnswerRecords

        return await AnswerRecords(database).show(name)

    shown = with_database("answers", showing)
    if as_json:
        print_json(shown)
    else:
        _explain(shown)


@answers.command()
@click.argument("name", metavar="ID")
@json_option
def replay(name: str, as_json: bool) -> None:
    """Answer the same query again, store nothing, and show what differs. Exit 1 if anything does.

    The knowledge, heads, prompts and model are today's.
    """
    settings = prepare("answers")

    async def replaying() -> Replay:
        from appliance.bootstrap import Appliance
        from appliance.operations.client import engine_at_hand
        from appliance.services.answer_replay import AnswerReplay

        appliance = Appliance(settings)
        try:
            await appliance.database.check()
            await appliance.answer_records.show(name)  # an id that is wrong costs no engine
            async with engine_at_hand(settings) as well:
                if not well:
                    note("The engine does not come up; answering from the articles alone.")
                await appliance.prepare()
                await appliance.monitor.look()
                answering = AnswerReplay(appliance.database, appliance.ready.answer_query)
                return await answering(name)
        finally:
            await appliance.aclose()

    replayed = run(replaying())
    if as_json:
        print_json(replayed)
    else:
        _compare(replayed)
    sys.exit(0 if replayed.same else 1)


@answers.command()
@click.argument("name", metavar="[ID]", required=False)
@click.option("--expect", metavar="SEQ:DIGEST", help="A head noted earlier: it must still stand.")
@json_option
def verify(name: str | None, expect: str | None, as_json: bool) -> None:
    """Check that no record was changed, removed, inserted or moved. Exit 1 if one was.

    Prints the chain's head. Keep it where nobody can write who can write to the database: only
    with it is a chain recognised that was computed anew from some record on.
    """
    from appliance.errors import InvalidInput
    from appliance.services.answer_records import AnswerRecords, read_head

    try:
        expected = None if expect is None else read_head(expect)
    except InvalidInput as error:
        raise click.BadParameter(error.detail, param_hint="--expect") from error

    async def verifying(database: Database) -> Any:
        return await AnswerRecords(database).verify(name, expect=expected)

    verdict = with_database("answers", verifying)
    if as_json:
        print_json(verdict)
    else:
        for finding in verdict.findings:
            which = "answer" if finding.record is None else f"record {finding.record}"
            click.echo(f"{which}: {finding.problem}. {finding.detail}")
        click.echo(
            f"{'sound' if verdict.sound else 'NOT SOUND'}: records {verdict.records}, "
            f"erased {len(verdict.erased)}, findings {len(verdict.findings)}"
        )
        click.echo(f"head {verdict.head}")
    sys.exit(0 if verdict.sound else 1)


def _explain(shown: Shown) -> None:
    content, personal = shown.content, shown.personal
    decisions, answer, made_with = content["decisions"], content["answer"], content["made_with"]
    click.echo(f"record {shown.record}, {content['at'][:19]}, message {content['message_id']}")
    if personal is None:
        click.echo("\nWhat was asked and answered is erased.")
    else:
        asked = personal["query"]
        click.echo(f"\nasked by {asked['user_id']}, after {len(asked['history'])} messages")
        _indented(asked["text"])
        click.echo(f"\n{answer['outcome']}, {answer['mode']}, {content['seconds']:.2f} s")
        _indented(personal["answer"]["response"])
        if personal["answer"].get("cut"):
            click.echo("\ncut, because no passage supports it")
            _indented("\n".join(personal["answer"]["cut"]))
    click.echo("\ndecided")
    found = {**decisions, **({} if personal is None else personal["decisions"])}
    found["topic"] = decisions.get("topic")
    rows = [
        (name, _value(value), _value(found.get(f"{name}_confidence", "")))
        for name, value in found.items()
        if not name.endswith("_confidence")
    ]
    table(("  what", "decision", "confidence"), [(f"  {what}", *rest) for what, *rest in rows])
    failed = [*content["failures"], *answer.get("failures", ())]
    if failed:
        click.echo(f"  did without: {', '.join(failed)}")
    click.echo("\npassages")
    cited = {citation["id"] for citation in answer["citations"]}
    table(
        ("  score", "id", "cited", "article today", "question"),
        [
            (
                f"  {p['score']:.3f}",
                p["id"],
                "yes" if p["id"] in cited else "",
                shown.articles[p["id"]],
                p["title"],
            )
            for p in content["passages"]
        ],
    )
    click.echo("\nseconds")
    table(("  stage", "time"), [(f"  {s}", f"{t:.3f}") for s, t in content["stages"].items()])
    click.echo("\nmade with")
    table(("  what", "which"), [(f"  {k}", _value(v)) for k, v in _flat(made_with)])
    if content["left"]:
        click.echo("  The model was stopped: the customer left, or the time was up.")
    click.echo(f"\ndigest {shown.digest}, on {shown.previous[:SHORT]}")


def _compare(replayed: Replay) -> None:
    if replayed.same:
        click.echo(f"record {replayed.record}: the same answer from the same decisions")
    else:
        click.echo(f"record {replayed.record}: it comes out differently")
    for title, found in (
        ("different", replayed.differences),
        ("changed underneath", replayed.underneath),
    ):
        if found:
            click.echo(f"\n{title}")
            table(
                ("  what", "then", "now"),
                [(f"  {d.what}", _value(d.then), _value(d.now)) for d in found],
            )
    if replayed.response:
        click.echo("\nanswer")
        _indented("\n".join(replayed.response))
    if replayed.left:
        note("The model was stopped then: the customer left, or the time was up.")


def _flat(document: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in document.items():
        nested = isinstance(value, dict)
        rows += _flat(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return rows


def _value(value: Any) -> str:
    """A value in a cell: digests short, nothing for None."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_value(inner) for inner in value) or "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:SHORT] if digest else _line(text)


def _line(text: str | None) -> str:
    if text is None:
        return "(erased)"
    line = " ".join(text.split())
    return line if len(line) <= LINE_CHARS else f"{line[: LINE_CHARS - 1]}…"


def _indented(text: str) -> None:
    for line in text.splitlines():
        click.echo(f"  {line}".rstrip())

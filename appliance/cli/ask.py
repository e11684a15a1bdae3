"""``appliance ask``: one question, through the running appliance where there is one."""

from __future__ import annotations

from typing import Any

import click

from appliance.cli.output import json_option, note, prepare, print_json, run

ASKING_USER = "operator"


@click.command()
@click.argument("text")
@click.option("--user", default=ASKING_USER, show_default=True, help="Ask as this user id.")
@click.option("--conversation", help="Continue this conversation.")
@click.option("--stream", is_flag=True, help="Print words as they come.")
@json_option
def ask(text: str, user: str, conversation: str | None, stream: bool, as_json: bool) -> None:
    """Ask the desk a question."""
    settings = prepare("ask")
    body: dict[str, Any] = {"user_id": user, "message": text}
    if conversation is not None:
        body["conversation_id"] = conversation
    show = stream and not as_json

    async def asking() -> Any:
        from appliance.errors import NotReady
        from appliance.operations.client import RunningAppliance

        async with RunningAppliance.connect(settings) as running:
            if running is None:
                return await _ask_here(settings, body, show)
            if not show:
                return await running.post("/query", body)
            result = None
            async for event, data in running.stream("/query/stream", body):
                result = _shown(event, data) or result
            if result is None:
                raise NotReady("The answer broke off.", hint="Ask again; the message is stored.")
            return result

    result = run(asking())
    if as_json:
        print_json(result)
        return
    metadata = result["metadata"]
    click.echo("" if show else result["response"])
    for citation in metadata["citations"]:
        click.echo(f"  [{citation['id']}] {citation['title']}")
    note(
        f"{result['category']}, {result['sentiment']}, priority {result['priority']}, "
        f"{metadata['outcome']} ({metadata['mode']}), {metadata['processing_time']:.2f} s, "
        f"conversation {result['conversation_id']}"
    )


def _shown(event: str, data: Any) -> Any:
    """Print a token; return the answer when it comes."""
    from appliance.errors import ApplianceError

    if event == "token":
        click.echo(data["text"], nl=False)
    elif event == "error":
        raise ApplianceError(data["detail"], hint=data.get("hint", ""))
    return data if event == "answer" else None


async def _ask_here(settings: Any, body: dict[str, Any], show: bool) -> Any:
    """Answer in this process, with an engine of its own for the time of the question."""
    import asyncio

    import msgspec

    from appliance.bootstrap import Appliance
    from appliance.operations.client import engine_at_hand
    from appliance.services.access import OPERATOR
    from appliance.services.answer_query import Ask

    async def emit(event: str, data: dict[str, Any]) -> None:
        if show:
            _shown(event, data)

    note("No appliance is running; answering in this process.")
    appliance = Appliance(settings)
    try:
        await appliance.database.check()
        async with engine_at_hand(settings) as well:
            if not well:
                note("The engine does not come up; answering from the articles alone.")
            await appliance.prepare()
            await appliance.monitor.look()
            service = appliance.ready.answer_query
            accepted = await service.accept(Ask(**body), OPERATOR)
            result = await service.start(accepted, emit, asyncio.Event())
        return msgspec.to_builtins(result)
    finally:
        await appliance.aclose()

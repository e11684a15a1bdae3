"""``appliance webhooks``: receivers of events, and what became of each delivery."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from appliance.cli.output import json_option, note, prepare, print_json, require_open, run, table
from appliance.domain.events import EVENTS

if TYPE_CHECKING:
    from appliance.services.access import Principal
    from appliance.services.deliveries import Deliveries, ShownDelivery
    from appliance.services.webhooks import WebhookAndSecret, Webhooks
    from appliance.settings import Settings
    from appliance.storage.database import Database
    from appliance.storage.records import Webhook

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

LOOK_SECONDS = 0.2
"""How often a test looks whether its delivery has arrived."""
STATES = ("pending", "sending", "delivered", "dead")
MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"])


def _options(command: F) -> F:
    for option in (
        click.option("--description", help="What it is for."),
        click.option(
            "--ca",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="PEM file of the authority to trust for it, instead of this machine's.",
        ),
        click.option("--all-events", is_flag=True, help="Every event there is now."),
        click.option(
            "--event", "events", multiple=True, type=click.Choice(EVENTS), help="Repeat for more."
        ),
    ):
        command = option(command)
    return command


@click.group()
def webhooks() -> None:
    """Send events to other systems, signed by Standard Webhooks 1.0.0.

    Receivers have to be listed in APPLIANCE_WEBHOOK_ALLOW.
    """


@webhooks.command()
@click.argument("url")
@_options
@json_option
def create(
    url: str,
    events: tuple[str, ...],
    all_events: bool,
    ca: Path | None,
    description: str | None,
    as_json: bool,
) -> None:
    """Add a webhook. The secret to verify its deliveries by is shown this once."""
    wanted = EVENTS if all_events else events
    if not wanted:
        raise click.UsageError("Name an --event, or --all-events.")
    ca_pem = _read(ca)
    made = _with_webhooks(
        lambda hooks, who: hooks.create(who, url, wanted, description=description, ca_pem=ca_pem)
    )
    _show_secret(made, as_json)


@webhooks.command("list")
@json_option
def list_webhooks(as_json: bool) -> None:
    """List webhooks, without their secrets."""
    found = _with_webhooks(lambda hooks, who: hooks.list(who))
    if as_json:
        print_json({"items": found})
        return
    table(
        ("id", "state", "events", "url"),
        [(each.id, _state(each), ",".join(each.events), each.url) for each in found],
    )


@webhooks.command()
@click.argument("webhook_id")
@json_option
def show(webhook_id: str, as_json: bool) -> None:
    """Show one webhook."""
    _show(_with_webhooks(lambda hooks, who: hooks.get(who, webhook_id)), as_json)


@webhooks.command()
@click.argument("webhook_id")
@click.option("--url", help="Where it goes from now on.")
@_options
@click.option("--no-ca", is_flag=True, help="Trust this machine's authorities again.")
@click.option("--on/--off", "active", default=None, help="Switch it on or off.")
@json_option
def update(
    webhook_id: str,
    url: str | None,
    events: tuple[str, ...],
    all_events: bool,
    ca: Path | None,
    no_ca: bool,
    description: str | None,
    active: bool | None,
    as_json: bool,
) -> None:
    """Change what is named of a webhook; --event names all it gets from now on."""
    given = _read(ca)

    async def updating(hooks: Webhooks, who: Principal) -> Webhook:
        before = await hooks.get(who, webhook_id)
        return await hooks.update(
            who,
            webhook_id,
            url=url or before.url,
            events=EVENTS if all_events else events or before.events,
            description=before.description if description is None else description,
            ca_pem=None if no_ca else given or before.ca_pem,
            active=before.active if active is None else active,
        )

    _show(_with_webhooks(updating), as_json)


@webhooks.command()
@click.argument("webhook_id")
@json_option
def delete(webhook_id: str, as_json: bool) -> None:
    """Remove a webhook with its deliveries."""
    _with_webhooks(lambda hooks, who: hooks.delete(who, webhook_id))
    if as_json:
        print_json({"id": webhook_id, "deleted": True})
    else:
        click.echo(f"Webhook {webhook_id} is deleted.")


@webhooks.command()
@click.argument("webhook_id")
@click.option(
    "--overlap-hours", type=int, help="How long the present secret stays live; 0: leaked."
)
@json_option
def rotate(webhook_id: str, overlap_hours: int | None, as_json: bool) -> None:
    """Make a new secret, shown this once. Both sign until the overlap ends, by default a day."""

    async def rotating(hooks: Webhooks, who: Principal) -> WebhookAndSecret:
        from appliance.services.webhooks import OVERLAP_HOURS

        hours = OVERLAP_HOURS if overlap_hours is None else overlap_hours
        return await hooks.rotate(who, webhook_id, overlap_hours=hours)

    _show_secret(_with_webhooks(rotating), as_json)


@webhooks.command()
@click.argument("webhook_id")
@click.option(
    "--wait", default=60.0, show_default=True, help="Seconds to wait for its outcome; 0: none."
)
@json_option
def test(webhook_id: str, wait: float, as_json: bool) -> None:
    """Send a webhook.test the way every event goes. Exit 1 if it does not arrive."""

    async def testing(sending: Deliveries, who: Principal) -> ShownDelivery:
        import asyncio
        import time

        sent = await sending.test(who, webhook_id)
        deadline = time.monotonic() + wait
        while sent.state in ("pending", "sending") and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
            sent = await sending.get(who, sent.id)
        return sent

    sent = _with_deliveries(testing)
    if as_json:
        print_json(sent)
    else:
        _show_deliveries([sent])
        if sent.state == "pending" and wait:
            note("No worker took it. Is 'appliance worker' running?")
    sys.exit(0 if sent.state == "delivered" or not wait else 1)


@webhooks.command()
@click.argument("webhook_id")
@click.option("--status", "state", type=click.Choice(STATES))
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 100))
@click.option("--after", help="Id of the last delivery of the page before.")
@json_option
def deliveries(webhook_id: str, state: Any, limit: int, after: str | None, as_json: bool) -> None:
    """List a webhook's deliveries, newest first."""
    found = _with_deliveries(
        lambda sending, who: sending.list(who, webhook_id, limit=limit, state=state, after=after)
    )
    if as_json:
        print_json({"items": found})
    else:
        _show_deliveries(found)


@webhooks.command()
@click.argument("delivery_id", required=False)
@click.option("--webhook", "webhook_id", help="Send a range of this webhook's deliveries again.")
@click.option("--since", type=MOMENT, help="Begin of the range, UTC.")
@click.option("--until", type=MOMENT, help="End of the range, UTC; by default now.")
@click.option(
    "--status",
    "states",
    multiple=True,
    type=click.Choice(("dead", "delivered")),
    default=("dead",),
    show_default=True,
)
@json_option
def redeliver(
    delivery_id: str | None,
    webhook_id: str | None,
    since: datetime | None,
    until: datetime | None,
    states: Any,
    as_json: bool,
) -> None:
    """Send one delivery again, or those of a webhook in a range of time."""
    if delivery_id and not webhook_id:
        again = _with_deliveries(lambda sending, who: sending.redeliver(who, delivery_id))
        if as_json:
            print_json(again)
        else:
            click.echo(f"Delivery {delivery_id} is on its way again.")
        return
    if delivery_id or not webhook_id or since is None:
        raise click.UsageError("Name a DELIVERY_ID, or a --webhook and --since.")
    begin, end = since.replace(tzinfo=UTC), until and until.replace(tzinfo=UTC)
    number = _with_deliveries(
        lambda sending, who: sending.redeliver_between(
            who, webhook_id, since=begin, until=end, states=states
        )
    )
    if as_json:
        print_json({"requeued": number})
    else:
        click.echo(f"{number} deliveries are on their way again.")


def _with_webhooks(work: Callable[[Webhooks, Principal], Awaitable[T]]) -> T:
    def working(database: Database, settings: Settings) -> Awaitable[T]:
        from appliance.jobs.sending import receiver_guard, webhook_secrets
        from appliance.services.access import OPERATOR
        from appliance.services.webhooks import Webhooks

        guard, secrets = receiver_guard(settings), webhook_secrets(settings)
        return work(Webhooks(database, guard, secrets), OPERATOR)

    return _with_storage(working)


def _with_deliveries(work: Callable[[Deliveries, Principal], Awaitable[T]]) -> T:
    def working(database: Database, settings: Settings) -> Awaitable[T]:
        from appliance.jobs.sending import receiver_guard
        from appliance.services.access import OPERATOR
        from appliance.services.deliveries import Deliveries

        return work(Deliveries(database, receiver_guard(settings)), OPERATOR)

    return _with_storage(working)


def _with_storage(work: Callable[[Database, Settings], Awaitable[T]]) -> T:
    settings = prepare("webhooks")
    require_open()
    from appliance.jobs.waking import waker
    from appliance.operations.backup import exchange
    from appliance.settings import ensure_folders
    from appliance.storage.database import Database

    ensure_folders(settings)
    exchange.require_settled(settings)

    async def working() -> T:
        wake = waker(settings)
        database = Database(settings.resolved_database_url, wake=wake)
        try:
            await database.check()
            return await work(database, settings)
        finally:
            await database.aclose()
            wake.close()

    return run(working())


def _read(ca: Path | None) -> str | None:
    return None if ca is None else ca.read_text(encoding="utf-8", errors="replace")


def _state(webhook: Webhook) -> str:
    if not webhook.active:
        return f"off ({webhook.disabled_reason})"
    return "failing" if webhook.failing_since else "on"


def _show(webhook: Webhook, as_json: bool) -> None:
    if as_json:
        print_json(webhook)
        return
    table(
        ("field", "value"),
        [
            ("id", webhook.id),
            ("url", webhook.url),
            ("state", _state(webhook)),
            ("events", ", ".join(webhook.events)),
            ("description", webhook.description or "-"),
            ("trusts", "its own authority" if webhook.ca_pem else "this machine's authorities"),
            ("failing since", webhook.failing_since or "-"),
            ("older secret until", webhook.previous_secret_expires_at or "-"),
        ],
    )


def _show_secret(webhook: WebhookAndSecret, as_json: bool) -> None:
    if as_json:
        print_json(webhook)
        return
    click.echo(webhook.secret)
    note(f"The secret of webhook {webhook.id}. Keep it: it is not shown again.")


def _show_deliveries(found: list[ShownDelivery]) -> None:
    table(
        ("id", "event", "state", "attempts", "status", "made", "due", "error"),
        [
            (
                each.id,
                each.event_type,
                each.state,
                len(each.attempts),
                each.response_status or "-",
                f"{each.created_at:%Y-%m-%d %H:%M:%S}",
                f"{each.next_attempt_at:%Y-%m-%d %H:%M:%S}" if each.next_attempt_at else "-",
                each.last_error or "-",
            )
            for each in found
        ],
    )

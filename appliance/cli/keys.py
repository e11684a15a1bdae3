"""``appliance keys``: who may use the API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import click

from appliance.cli.output import json_option, note, print_json, table, with_database
from appliance.domain.policy import ROLES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from appliance.services.access import Access
    from appliance.storage.database import Database

T = TypeVar("T")


@click.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command()
@click.option("--role", required=True, type=click.Choice(ROLES))
@click.option("--name", default="", help="What the key is for.")
@click.option("--user", help="Tie a customer's key to this user id.")
@click.option(
    "--days", type=click.IntRange(1, 36_500), help="Days until the key expires; never by default."
)
@click.option(
    "--expires",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="Instead of --days: the day or moment, in UTC, from which on it is not valid.",
)
@json_option
def create(
    role: str,
    name: str,
    user: str | None,
    days: int | None,
    expires: datetime | None,
    as_json: bool,
) -> None:
    """Make a key. It is shown this once and stored only as a hash."""
    if days and expires:
        raise click.UsageError("--days and --expires say the same: give one of them.")
    expires = expires.replace(tzinfo=UTC) if expires else None
    if days:
        expires = datetime.now(UTC) + timedelta(days=days)
    made = _with_access(
        lambda access: access.create_key(role, name=name, user_id=user, expires_at=expires)
    )
    if as_json:
        print_json({"id": made.id, "key": made.key, "role": made.role})
        return
    click.echo(made.key)
    note(f"Key {made.id} with the role {made.role}. Keep it: it is not shown again.")


@keys.command("list")
@json_option
def list_keys(as_json: bool) -> None:
    """List keys, without their secrets."""
    found = _with_access(lambda access: access.list_keys())
    if as_json:
        print_json(found)
        return
    now = datetime.now(UTC)
    table(
        ("id", "role", "name", "user", "in force", "expires", "last used"),
        [
            (
                k.id,
                k.role,
                k.name,
                k.user_id or "-",
                "yes" if k.usable(now) else "no",
                f"{k.expires_at:%Y-%m-%d %H:%M}" if k.expires_at else "-",
                f"{k.last_used_at:%Y-%m-%d %H:%M}" if k.last_used_at else "-",
            )
            for k in found
        ],
    )


@keys.command()
@click.argument("key_id")
@json_option
def revoke(key_id: str, as_json: bool) -> None:
    """End a key at once, also in an appliance that is running."""
    _with_access(lambda access: access.revoke_key(key_id))
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        click.echo(f"Key {key_id} is revoked.")


def _with_access(work: Callable[[Access], Awaitable[T]]) -> T:
    async def working(database: Database) -> T:
        from appliance.services.access import Access

        return await work(Access(database))

    return with_database("keys", working)

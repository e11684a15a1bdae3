"""``appliance accounts``: the desk's people, who sign in to the pages."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from appliance.cli.output import json_option, note, print_json, table, with_database
from appliance.domain.policy import STAFF_ROLES

if TYPE_CHECKING:
    from appliance.services.accounts import Accounts
    from appliance.storage.database import Database
    from appliance.storage.records import Account

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def accounts() -> None:
    """Make, list, disable and unlock accounts, and set their passwords."""


def _password_options(command: F) -> F:
    """Where a new password comes from: asked for twice unless one of these says otherwise."""
    for option in (
        click.option("--generate", is_flag=True, help="Make a password and print it."),
        click.option("--password-stdin", is_flag=True, help="Read the password from stdin."),
    ):
        command = option(command)
    return command


@accounts.command()
@click.argument("username")
@click.option("--role", required=True, type=click.Choice(STAFF_ROLES))
@click.option("--name", default="", help="The person's name.")
@_password_options
@json_option
def create(
    username: str, role: str, name: str, generate: bool, password_stdin: bool, as_json: bool
) -> None:
    """Make an account. It can be disabled later, never deleted."""
    password = _new_password(generate, password_stdin)

    async def creating(service: Accounts) -> Account:
        from appliance.services.access import OPERATOR

        return await service.create(OPERATOR, username, role, password, name=name)

    made = _with_accounts(creating)
    _tell(made, password if generate else None, as_json, f"{made.username} is made: {made.role}.")


@accounts.command("list")
@json_option
def list_accounts(as_json: bool) -> None:
    """List accounts, disabled and locked ones included."""

    async def listing(service: Accounts) -> list[Account]:
        from appliance.services.access import OPERATOR

        return await service.list(OPERATOR)

    found = _with_accounts(listing)
    if as_json:
        print_json(found)
        return
    now = datetime.now(UTC)
    table(
        ("username", "role", "name", "state", "last signed in"),
        [
            (
                a.username,
                a.role,
                a.name,
                "disabled" if a.disabled_at else "active" if a.may_sign_in(now) else "locked",
                f"{a.last_login_at:%Y-%m-%d %H:%M}" if a.last_login_at else "-",
            )
            for a in found
        ],
    )


@accounts.command()
@click.argument("username")
@json_option
def disable(username: str, as_json: bool) -> None:
    """Let nobody sign in by an account, and end its sessions at once."""
    _change(username, "disable", "is disabled", as_json)


@accounts.command()
@click.argument("username")
@json_option
def enable(username: str, as_json: bool) -> None:
    """Undo disable."""
    _change(username, "enable", "is enabled", as_json)


@accounts.command()
@click.argument("username")
@json_option
def unlock(username: str, as_json: bool) -> None:
    """Forgive the failed sign-ins that locked an account."""
    _change(username, "unlock", "is unlocked", as_json)


@accounts.command()
@click.argument("username")
@_password_options
@json_option
def password(username: str, generate: bool, password_stdin: bool, as_json: bool) -> None:
    """Give an account a new password; its sessions end and it is unlocked."""
    new = _new_password(generate, password_stdin)

    async def setting(service: Accounts) -> Account:
        from appliance.services.access import OPERATOR

        return await service.set_password(OPERATOR, username, new)

    changed = _with_accounts(setting)
    _tell(changed, new if generate else None, as_json, f"{changed.username} has a new password.")


def _new_password(generate: bool, from_stdin: bool) -> str:
    if generate and from_stdin:
        raise click.UsageError("Give one of --generate and --password-stdin.")
    if generate:
        from appliance.services.passwords import generate as make

        return make()
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal: use --password-stdin or --generate.")
    asked: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return asked


def _change(username: str, act: str, said: str, as_json: bool) -> None:
    async def changing(service: Accounts) -> Account:
        from appliance.services.access import OPERATOR

        changed: Account = await getattr(service, act)(OPERATOR, username)
        return changed

    changed = _with_accounts(changing)
    _tell(changed, None, as_json, f"{changed.username} {said}.")


def _tell(account: Account, generated: str | None, as_json: bool, line: str) -> None:
    """``generated`` is a password that nobody has seen yet."""
    if as_json:
        import msgspec

        shown = {"password": generated} if generated else {}
        print_json({**msgspec.to_builtins(account), **shown})
    elif generated:
        click.echo(generated)
        note(f"{line} The password is not shown again.")
    else:
        click.echo(line)


def _with_accounts(work: Callable[[Accounts], Awaitable[T]]) -> T:
    async def working(database: Database) -> T:
        from appliance.services.accounts import Accounts
        from appliance.services.passwords import Passwords

        return await work(Accounts(database, Passwords()))

    return with_database("accounts", working)

"""Accounts, sessions and keys as the pages and the API meet them: signing in and out, forged
requests, guessing, limits."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from appliance.errors import Conflict, Forbidden, InvalidInput, NotFound
from appliance.services import passwords
from appliance.services import sessions as service
from appliance.services.access import OPERATOR, Principal
from appliance.services.limits import ADDRESS_FAILURES, site
from appliance.services.sessions import LOCK_AFTER, LOCK_TIME
from tests.integration.front_door import (
    API,
    PAGE,
    PASSWORD,
    FrontDoor,
    Headers,
    front_door,
    session_of,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning"),
]

NEW = "a fresh battery of words"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cheap hashes, and failures answered at once: for tests that look at something else."""
    monkeypatch.setattr(service, "FAILURE_SECONDS", 0.0)
    cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(passwords, "_hasher", cheap)
    monkeypatch.setattr(passwords, "_NOBODYS", cheap.hash("nobody's"))


@pytest.fixture
async def door(sqlite_url: str, tmp_path: Path, hasty: None) -> AsyncIterator[FrontDoor]:
    async with front_door(sqlite_url, tmp_path) as opened:
        yield opened


class Clock:
    """The present, moved."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self, zone: Any) -> datetime:
        return datetime.now(zone) + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(service, "datetime", moved)
    return moved


async def account(door: FrontDoor, who: Headers) -> int:
    return (await door.send("GET", f"{API}/account", who)).status_code


# --- in and out -----------------------------------------------------------------------------------


@pytest.fixture
async def anywhere(database_url: str, tmp_path: Path, hasty: None) -> AsyncIterator[FrontDoor]:
    """A door on each kind of database."""
    async with front_door(database_url, tmp_path) as opened:
        yield opened


async def test_in_and_out(anywhere: FrontDoor) -> None:
    door = anywhere
    answer = await door.login(username=" ADA ", password=PASSWORD)
    told = answer.json()
    assert set(told) == {"username", "name", "role", "csrf_token", "expires_at"}
    assert (told["username"], told["name"], told["role"]) == ("ada", "Ada", "admin")
    cookie, _, attributes = answer.headers["set-cookie"].partition(";")
    assert re.fullmatch(r"appliance_session_[0-9a-f]{8}=[\w-]{43}", cookie)
    given = {part.strip().lower() for part in attributes.split(";")}
    assert {"httponly", "samesite=strict", "path=/"} <= given
    assert not [part for part in given if part.startswith(("max-age", "expires", "domain"))]

    who = session_of(answer)
    assert (await door.send("GET", f"{API}/account", who)).json() == told
    assert (await door.send("GET", f"{API}/accounts", who)).status_code == 200
    out = await door.send("POST", f"{API}/logout", who)
    assert out.status_code == 204
    assert "max-age=0" in out.headers["set-cookie"].lower()
    assert await account(door, who) == 401

    entry = (await door.audit("session.open"))[0]
    assert (entry.actor, entry.target) == ("account:ada", "ada")
    stored = (await door.appliance.accounts.list(OPERATOR))[0]
    assert stored.last_login_at is not None


async def test_a_key_signs_in_for_as_long_as_it_is_good(anywhere: FrontDoor) -> None:
    door = anywhere
    made = await door.appliance.access.create_key("agent", name="front desk")
    answer = await door.login(key=f" {made.key}\n")
    told = answer.json()
    assert (told["username"], told["name"], told["role"]) == (None, "front desk", "agent")
    who = session_of(answer)
    assert (await door.send("GET", f"{API}/users", who)).status_code == 200
    assert (await door.send("GET", f"{API}/keys", who)).status_code == 403
    change = {"present": PASSWORD, "new": NEW}
    answer = await door.send("POST", f"{API}/account/password", who, json=change)
    assert answer.status_code == 409
    await door.appliance.access.revoke_key(made.id)
    assert await account(door, who) == 401


async def test_customers_and_strangers_do_not_sign_in(door: FrontDoor) -> None:
    key = door.keys["customer"]["Authorization"].partition(" ")[2]
    assert (await door.login(key=key)).status_code == 403
    for key in ("ssa_nothing", "x", "\u00e9\u4e2d"):
        assert (await door.login(key=key)).status_code == 401
    bodies: list[dict[str, str]] = [
        {},
        {"username": "ada"},
        {"password": PASSWORD},
        {"username": "ada", "password": PASSWORD, "key": "ssa_x"},
        {"username": "ada", "password": ""},
        {"username": "ada", "password": "x" * 513},
        {"username": "ada", "password": PASSWORD, "remember": "yes"},
    ]
    for body in bodies:
        assert (await door.login(**body)).status_code == 400, body


async def test_signing_in_again_ends_the_session_before_it(door: FrontDoor) -> None:
    """Nobody can be given a session beforehand and be watched in it."""
    first = await door.sign_in("ada")
    again = await door.login({"Cookie": first["Cookie"]}, username="ada", password=PASSWORD)
    second = session_of(again)
    assert second["Cookie"] != first["Cookie"]
    assert (await account(door, first), await account(door, second)) == (401, 200)
    planted = first["Cookie"].partition("=")[0] + "=" + "A" * 43
    third = await door.login({"Cookie": planted}, username="ada", password=PASSWORD)
    assert "A" * 43 not in third.headers["set-cookie"]
    assert await account(door, {"Cookie": planted}) == 401


async def test_secrets_are_stored_as_hashes(sqlite_url: str, tmp_path: Path) -> None:
    async with front_door(sqlite_url, tmp_path) as door:
        await _secrets_are_hashes(door)


async def _secrets_are_hashes(door: FrontDoor) -> None:
    who = await door.sign_in("ada")
    token = who["Cookie"].partition("=")[2]
    file = Path(door.appliance.settings.resolved_database_url.removeprefix("sqlite:///"))
    stored = b"".join(part.read_bytes() for part in file.parent.glob(f"{file.name}*"))
    for secret in (token, who["X-CSRF-Token"], PASSWORD, door.keys["admin"]["Authorization"][7:]):
        assert secret.encode() not in stored
    assert b"$argon2id$v=19$m=65536,t=3,p=1$" in stored


async def test_sessions_end_unused_and_end_at_last(door: FrontDoor, clock: Clock) -> None:
    idle = timedelta(minutes=door.appliance.settings.session_idle_minutes)
    longest = timedelta(hours=door.appliance.settings.session_hours)
    used, unused = await door.sign_in("ada"), await door.sign_in("ada")
    while clock.ahead + idle < longest:
        clock.ahead += idle - timedelta(minutes=2)
        assert await account(door, used) == 200
    assert await account(door, unused) == 401
    clock.ahead = longest
    assert await account(door, used) == 401
    await door.sign_in("ada")  # and what has expired is tidied away
    token = used["Cookie"].partition("=")[2]
    assert (
        await door.appliance.database.read(
            lambda records: records.sessions.by_hash(service.hashed(token))
        )
        is None
    )


async def test_a_disabled_account_is_out_at_once(door: FrontDoor) -> None:
    who = await door.sign_in("bob")
    admin = door.keys["admin"]
    answer = await door.send("POST", f"{API}/accounts/bob/disable", admin)
    assert answer.json()["disabled_at"] is not None
    assert await account(door, who) == 401
    assert (await door.login(username="bob", password=PASSWORD)).status_code == 401
    await door.send("POST", f"{API}/accounts/bob/enable", admin)
    assert await account(door, await door.sign_in("bob")) == 200
    assert await account(door, who) == 401


async def test_a_new_password_ends_the_other_sessions(door: FrontDoor) -> None:
    here, there = await door.sign_in("bob"), await door.sign_in("bob")
    path = f"{API}/account/password"

    async def change(present: str, new: str) -> Any:
        return await door.send("POST", path, here, json={"present": present, "new": new})

    assert (await change("not this one", NEW)).status_code == 403
    for poor in (PASSWORD, "short", "aaaaaaaaaaaaaaaa", "this is bob's own", "x" * 129):
        assert (await change(PASSWORD, poor)).status_code == 400, poor
    assert await account(door, there) == 200
    changed = session_of(await change(PASSWORD, NEW))
    assert await account(door, changed) == 200
    assert (await account(door, here), await account(door, there)) == (401, 401)
    assert (await door.login(username="bob", password=PASSWORD)).status_code == 401
    await door.sign_in("bob", NEW)
    by = [(entry.actor, entry.target) for entry in await door.audit("account.password")]
    assert by == [("account:bob", "bob")]


async def test_a_password_set_by_an_administrator_ends_all(door: FrontDoor) -> None:
    who, admin = await door.sign_in("bob"), await door.sign_in("ada")
    path = f"{API}/accounts/bob/password"
    assert (await door.send("POST", path, admin, json={"password": "short"})).status_code == 400
    assert (await door.send("POST", path, admin, json={"password": NEW})).status_code == 200
    assert await account(door, who) == 401
    await door.sign_in("bob", NEW)
    assert [entry.actor for entry in await door.audit("account.password")] == ["account:ada"]


# --- forged requests ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "0" * 64},
        {"X-CSRF-Token": "\u00e9"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
async def test_a_forged_request_changes_nothing(door: FrontDoor, change: Headers) -> None:
    who = await door.sign_in("ada")
    forged = {name: value.encode() for name, value in (who | change).items()}
    for method, path in (("POST", "/accounts/bob/disable"), ("POST", "/logout")):
        answer = await door.client.request(method, API + path, headers=forged)
        assert answer.status_code == 403, path
    assert await account(door, who) == 200
    assert (await door.send("POST", f"{API}/accounts/bob/disable", who)).status_code == 200


async def test_the_token_of_another_session_is_worth_nothing(door: FrontDoor) -> None:
    one, two = await door.sign_in("ada"), await door.sign_in("ada")
    mixed = one | {"X-CSRF-Token": two["X-CSRF-Token"]}
    assert (await door.send("POST", f"{API}/accounts/bob/disable", mixed)).status_code == 403


async def test_another_site_cannot_sign_a_browser_in(door: FrontDoor) -> None:
    body = {"username": "ada", "password": PASSWORD}
    assert (await door.send("POST", f"{API}/login", json=body)).status_code == 403
    away = PAGE | {"Sec-Fetch-Site": "cross-site"}
    assert (await door.send("POST", f"{API}/login", away, json=body)).status_code == 403
    assert await door.audit("session.open") == []


async def test_the_chat_page_speaks_for_its_visitor_beside_a_session(door: FrontDoor) -> None:
    staff, visitor = await door.sign_in("ada"), await door.visitor()
    both = {"Cookie": f"{staff['Cookie']}; {visitor['Cookie']}"}
    chat = both | {"X-Requested-With": "appliance-chat"}
    assert (await door.send("GET", f"{API}/stats", chat)).status_code == 403
    session = await door.send("GET", f"{API}/session", chat)
    assert session.json()["user_id"].startswith("visitor-")
    assert (await door.send("GET", f"{API}/stats", both | PAGE)).status_code == 200


# --- guessing -------------------------------------------------------------------------------------


async def test_failures_look_alike_and_take_alike(
    sqlite_url: str, tmp_path: Path, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "FAILURE_SECONDS", 0.4)
    async with front_door(sqlite_url, tmp_path) as door:
        await door.appliance.accounts.create(OPERATOR, "gone", "agent", PASSWORD)
        await door.appliance.accounts.disable(OPERATOR, "gone")
        tries = {
            "wrong password": ("ada", "not the password"),
            "no such account": ("nobody", PASSWORD),
            "disabled": ("gone", PASSWORD),
            "no name at all": ("\u200b", PASSWORD),
        }
        took = []
        texts = set()
        for what, (username, password) in tries.items():
            started = time.monotonic()
            answer = await door.login(username=username, password=password)
            took.append(time.monotonic() - started)
            assert answer.status_code == 401, what
            texts.add(answer.text)
        assert len(texts) == 1
        assert min(took) >= 0.4, "each waits for the same moment"


async def test_where_there_is_no_account_a_password_is_verified_all_the_same(
    door: FrontDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []
    real = passwords._verified
    monkeypatch.setattr(
        passwords, "_verified", lambda stored, given: verified.append(stored) or real(stored, given)
    )
    for username in ("ada", "nobody"):
        await door.login(username=username, password="not the password")
    parameters = [stored.rsplit("$", 2)[0] for stored in verified]
    assert len(parameters) == 2
    assert parameters[0] == parameters[1]


async def test_hashes_of_former_parameters_are_made_anew(
    door: FrontDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stored() -> str:
        read = door.appliance.database.read
        return str(await read(lambda records: records.accounts.password_hash("ada")))

    before = await stored()
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=2, memory_cost=64))
    assert (await door.login(username="ada", password="wrong")).status_code == 401
    assert await stored() == before
    await door.sign_in("ada")
    assert "t=2" in await stored()
    await door.sign_in("ada")


async def test_no_more_passwords_are_verified_than_the_machine_bears(
    door: FrontDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    running: list[str] = []

    def slow(stored: str, given: str) -> bool:
        nonlocal most
        running.append(given)
        most = max(most, len(running))
        time.sleep(0.02)
        running.remove(given)
        return False

    monkeypatch.setattr(passwords, "_verified", slow)
    monkeypatch.setattr(passwords, "WAITING", 6)
    tries = (door.login(username=f"user{n}", password=f"guess {n}") for n in range(12))
    statuses = [answer.status_code for answer in await asyncio.gather(*tries)]
    assert most <= passwords.AT_ONCE
    assert set(statuses) == {401, 429}


async def test_an_account_locks_and_unlocks(door: FrontDoor, clock: Clock) -> None:
    for _ in range(LOCK_AFTER):
        assert (await door.login(username="ada", password="wrong")).status_code == 401
    locked = await door.login(username="ada", password=PASSWORD)
    assert locked.status_code == 401, "the right password does not open a locked account"
    entry = (await door.audit("account.lock"))[0]
    assert (entry.actor, entry.target) == ("appliance", "ada")
    # A session that is open stays open: only guessing is stopped.
    clock.ahead = LOCK_TIME + timedelta(seconds=1)
    await door.sign_in("ada")

    clock.ahead = timedelta()
    for _ in range(LOCK_AFTER):
        await door.login(username="bob", password="wrong")
    assert (await door.login(username="bob", password=PASSWORD)).status_code == 401
    await door.send("POST", f"{API}/accounts/bob/unlock", door.keys["admin"])
    await door.sign_in("bob")


async def test_a_right_password_forgives_the_wrong_ones(door: FrontDoor) -> None:
    for _ in range(3):
        for _ in range(LOCK_AFTER - 1):
            await door.login(username="ada", password="wrong")
        await door.sign_in("ada")


async def test_guessing_at_once_gains_nothing(anywhere: FrontDoor) -> None:
    """However many guesses are under way, no more than so many are judged."""
    door = anywhere
    guesses = [f"guess number {n}" for n in range(LOCK_AFTER + 5)]
    answers = await asyncio.gather(*(door.login(username="ada", password=g) for g in guesses))
    assert {answer.status_code for answer in answers} == {401}
    assert len(await door.audit("account.lock")) == 1
    assert (await door.login(username="ada", password=PASSWORD)).status_code == 401


async def test_the_present_password_cannot_be_guessed_from_inside(door: FrontDoor) -> None:
    who = await door.sign_in("bob")
    body = {"present": "wrong", "new": NEW}
    for _ in range(LOCK_AFTER):
        answer = await door.send("POST", f"{API}/account/password", who, json=body)
        assert answer.status_code == 403
    body["present"] = PASSWORD
    answer = await door.send("POST", f"{API}/account/password", who, json=body)
    assert answer.status_code == 403
    assert len(await door.audit("account.lock")) == 1


async def test_an_address_that_fails_too_often_has_to_wait(door: FrontDoor) -> None:
    for n in range(ADDRESS_FAILURES):
        answer = await door.login(username=f"user{n}", password="wrong")
        assert answer.status_code == 401, n
    for body in ({"username": "ada", "password": PASSWORD}, {"key": "ssa_x"}):
        answer = await door.login(**body)
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 15 * 60
    forwarded = {
        "X-Forwarded-For": "10.9.8.7",
        "Forwarded": "for=10.9.8.7",
        "X-Real-IP": "10.9.8.7",
    }
    answer = await door.login(forwarded, username="ada", password=PASSWORD)
    assert answer.status_code == 429, "no header decides where a request comes from"


def test_what_counts_as_one_address() -> None:
    assert site("192.0.2.7") == "192.0.2.7"
    assert site("::ffff:192.0.2.7") == "192.0.2.7"
    assert site("2001:db8::1") == site("2001:db8::ffff:1") != site("2001:db8:1::1")
    assert site("fe80::1%eth0") == "fe80::/64"
    assert site("") == ""


# --- accounts and keys ----------------------------------------------------------------------------


async def test_accounts_that_make_no_sense(anywhere: FrontDoor) -> None:
    accounts = anywhere.appliance.accounts
    for username in ("", " ", "a b", "ada\n", "-ada", "ada/../bob", "x" * 65, "\u0430da"):
        if username == "ada\n":
            continue  # cleaned to ada, which is taken
        with pytest.raises(InvalidInput):
            await accounts.create(OPERATOR, username, "agent", PASSWORD)
    with pytest.raises(InvalidInput):
        await accounts.create(OPERATOR, "eve", "customer", PASSWORD)
    with pytest.raises(InvalidInput):
        await accounts.create(OPERATOR, "eve", "agent", PASSWORD, name="x" * 201)
    with pytest.raises(InvalidInput):
        await accounts.create(OPERATOR, "eve", "agent", "\ud800" * 12)
    with pytest.raises(Conflict, match="taken"):
        await accounts.create(OPERATOR, "ADA", "agent", PASSWORD)
    for act in (accounts.disable, accounts.enable, accounts.unlock):
        with pytest.raises(NotFound):
            await act(OPERATOR, "eve")
        with pytest.raises(Forbidden):
            await act(Principal("agent", "account:bob"), "bob")
    assert [a.username for a in await accounts.list(OPERATOR)] == ["ada", "bob"]


async def test_accounts_over_the_api(door: FrontDoor) -> None:
    admin = door.keys["admin"]
    body = {"username": "Eve", "role": "agent", "password": PASSWORD, "name": "Eve E."}
    made = await door.send("POST", f"{API}/accounts", admin, json=body)
    assert made.status_code == 201
    assert made.json()["username"] == "eve"
    assert (await door.send("POST", f"{API}/accounts", admin, json=body)).status_code == 409
    listed = await door.send("GET", f"{API}/accounts", admin)
    assert [item["username"] for item in listed.json()["items"]] == ["ada", "bob", "eve"]
    assert "argon2" not in listed.text + made.text
    assert PASSWORD not in listed.text + made.text
    missing = await door.send("POST", f"{API}/accounts/mallory/unlock", admin)
    assert missing.status_code == 404


async def test_keys_over_the_api(door: FrontDoor) -> None:
    admin = await door.sign_in("ada")
    body = {
        "role": "customer",
        "name": "shop",
        "user_id": "u1",
        "expires_at": "2999-01-01T00:00:00Z",
    }
    made = await door.send("POST", f"{API}/keys", admin, json=body)
    assert made.status_code == 201
    assert set(made.json()) == {"id", "key", "role"}
    headers = {"Authorization": f"Bearer {made.json()['key']}"}
    assert (await door.send("GET", f"{API}/session", headers)).json()["user_id"] == "u1"
    listed = await door.send("GET", f"{API}/keys", admin)
    mine = next(item for item in listed.json()["items"] if item["id"] == made.json()["id"])
    assert (mine["name"], mine["user_id"], mine["revoked_at"]) == ("shop", "u1", None)
    assert mine["last_used_at"] is not None
    assert made.json()["key"] not in listed.text
    for bad in ({"role": "owner"}, {"role": "agent", "user_id": "u"}, {"role": "agent", "x": 1}):
        assert (await door.send("POST", f"{API}/keys", admin, json=bad)).status_code == 400
    path = f"{API}/keys/{made.json()['id']}"
    assert (await door.send("DELETE", path, admin)).status_code == 204
    assert (await door.send("DELETE", path, admin)).status_code == 404
    assert (await door.send("GET", f"{API}/session", headers)).status_code == 401


# --- limits ---------------------------------------------------------------------------------------


async def test_a_key_has_its_limit_and_is_told(sqlite_url: str, tmp_path: Path) -> None:
    async with front_door(sqlite_url, tmp_path, key_requests_per_minute=5) as door:
        customer = door.keys["customer"]
        left = []
        for n in range(5):
            # Headers that clients make up do not make it another one.
            made_up = customer | {"X-Forwarded-For": f"10.0.0.{n}", "X-API-Key": str(n)}
            answer = await door.send("GET", f"{API}/session", made_up)
            assert answer.status_code == 200
            assert answer.headers["ratelimit-policy"] == '"key";q=5;w=60'
            told = re.fullmatch(r'"key";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
            assert told
            assert 1 <= int(told[2]) <= 60
            left.append(int(told[1]))
        assert left == [4, 3, 2, 1, 0]
        refused = await door.send("GET", f"{API}/conversations", customer)
        assert refused.status_code == 429
        assert refused.json()["code"] == "rate_limited"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["ratelimit"].startswith('"key";r=0;')
        # Others are not held up, and what asks whether we live is not counted.
        assert (await door.send("GET", f"{API}/stats", door.keys["agent"])).status_code == 200
        for _ in range(8):
            probe = await door.send("GET", f"{API}/health", customer)
            assert probe.status_code == 200
            assert "ratelimit" not in probe.headers


async def test_requests_told_again_count_too(sqlite_url: str, tmp_path: Path) -> None:
    async with front_door(sqlite_url, tmp_path, key_requests_per_minute=3) as door:
        agent = door.keys["admin"] | {"Idempotency-Key": "eve-1"}
        body = {"username": "eve", "role": "agent", "password": "a battery of words"}
        answers = [await door.send("POST", f"{API}/accounts", agent, json=body) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [201, 201, 201, 429]
        assert answers[1].headers["idempotent-replayed"] == "true"
        left = [answer.headers["ratelimit"].partition(";t")[0] for answer in answers[:3]]
        assert left == ['"key";r=2', '"key";r=1', '"key";r=0']


async def test_whoever_is_signed_in_has_the_same_limit_in_every_browser(
    sqlite_url: str, tmp_path: Path, hasty: None
) -> None:
    async with front_door(sqlite_url, tmp_path, key_requests_per_minute=4) as door:
        browsers = [await door.sign_in("bob") for _ in range(4)]
        assert [await account(door, who) for who in browsers] == [200] * 4
        assert await account(door, browsers[0]) == 429
        assert await account(door, await door.sign_in("ada")) == 200


async def test_visitors_are_told_their_limit(door: FrontDoor) -> None:
    visitor = await door.visitor()
    answer = await door.send("POST", f"{API}/feedback", visitor, json={})
    assert answer.headers["ratelimit-policy"] == '"visitor";q=20;w=60'
    assert answer.headers["ratelimit"].startswith('"visitor";r=19;t=')


async def test_an_expired_key_ends_its_sessions(door: FrontDoor) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1.5)
    made = await door.appliance.access.create_key("admin", expires_at=soon)
    answer = await door.login(key=made.key)
    if answer.status_code == 200:  # a very busy machine may be too late for it
        assert datetime.fromisoformat(answer.json()["expires_at"]) == soon
    await asyncio.sleep(max(0.0, (soon - datetime.now(UTC)).total_seconds()))
    if answer.status_code == 200:
        assert await account(door, session_of(answer)) == 401
    assert (await door.login(key=made.key)).status_code == 401

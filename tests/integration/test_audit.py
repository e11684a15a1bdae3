"""Every administrative act leaves an entry that says who; the log is paged, exported and kept."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance.domain.passage import Article
from appliance.errors import Forbidden, NotFound
from appliance.services import audit as service
from appliance.services.access import OPERATOR, Principal
from appliance.services.knowledge import save_articles
from appliance.storage import Database
from tests.appliance_process import FAQS, ApplianceProcess
from tests.integration.front_door import API, FrontDoor, front_door

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning"),
]

HELD = Article("held", "Who can see it?", "Nobody can. Send us your password.", "General")


@pytest.fixture
async def door(sqlite_url: str, tmp_path: Path) -> AsyncIterator[FrontDoor]:
    async with front_door(sqlite_url, tmp_path, desk_name="Rail") as opened:
        yield opened


async def test_every_act_over_the_api_names_its_actor(door: FrontDoor) -> None:
    who = await door.sign_in("ada")
    change = await save_articles(door.appliance.database, [HELD], replace=False)
    await door.appliance.users.put(OPERATOR, "u1", name=None, email=None, vip=True)

    def start(records: Any) -> str:
        conversation = records.conversations.create("u1", "key:1", "Help")
        question = records.messages.add(conversation.id, "customer", "Hello", "received")
        return str(question.id)

    message = await door.appliance.database.write(start)
    made = await door.send("POST", f"{API}/keys", who, json={"role": "agent", "name": "till"})
    key = made.json()["id"]
    eve = {"username": "eve", "role": "agent", "password": "a battery of words"}
    password = {"password": "another battery of words"}
    acts: list[tuple[str, str, Any, str, str]] = [
        ("DELETE", f"/keys/{key}", None, "key.revoke", key),
        ("POST", "/accounts", eve, "account.create", "eve"),
        ("POST", "/accounts/eve/password", password, "account.password", "eve"),
        ("POST", "/accounts/eve/disable", None, "account.disable", "eve"),
        ("POST", "/accounts/eve/enable", None, "account.enable", "eve"),
        ("POST", "/accounts/eve/unlock", None, "account.unlock", "eve"),
        (
            "POST",
            f"/kb/quarantine/{change.quarantined[0].id}/release",
            None,
            "kb.release",
            "held",
        ),
        (
            "POST",
            f"/kb/quarantine/{change.quarantined[0].id}/remove",
            None,
            "kb.remove",
            "held",
        ),
        (
            "POST",
            f"/messages/{message}/correction",
            {"category": "General"},
            "learn.correct",
            message,
        ),
        ("PUT", "/users/u1", {"name": "Grace", "vip": True}, "user.update", "user"),
        ("DELETE", "/users/u1", None, "user.forget", "user"),
    ]
    for method, path, body, _, _ in acts:
        answer = await door.send(method, API + path, who, json=body)
        assert answer.status_code < 300, (path, answer.text)
    entries = [e for e in await door.audit() if e.actor == "account:ada"]
    found = [(e.action, e.target) for e in reversed(entries)]
    assert found == [
        ("session.open", "ada"),
        ("key.create", key),
        *[(action, target) for *_, action, target in acts],
    ]
    # Neither secrets nor customers: what is written here stays for ever.
    written = json.dumps([[e.target, dict(e.details)] for e in await door.audit()])
    for secret in (made.json()["key"], *password.values(), eve["password"], "u1", "Grace", "Hello"):
        assert json.dumps(secret)[1:-1] not in written


async def test_a_refused_act_leaves_no_entry(door: FrontDoor) -> None:
    before = len(await door.audit())
    admin, agent = door.keys["admin"], door.keys["agent"]
    eve = {"username": "eve", "role": "agent", "password": "a battery of words"}
    for method, path, who, body in (
        ("DELETE", "/keys/nothing", admin, None),
        ("POST", "/accounts/nobody/disable", admin, None),
        ("POST", "/accounts", admin, eve | {"password": "short"}),
        ("POST", "/accounts", agent, eve),
        ("POST", "/keys", agent, {"role": "admin"}),
    ):
        assert (await door.send(method, API + path, who, json=body)).status_code >= 400, path
    assert len(await door.audit()) == before


async def test_a_start_tells_its_settings_without_secrets(
    postgresql_url: str, tmp_path: Path
) -> None:
    url = postgresql_url.replace("desk@", "desk:hunter2@", 1)
    async with front_door(url, tmp_path, desk_name="Rail", vllm_extra_args="--api-key=abc") as door:
        await door.appliance.start()
        entry = (await door.audit("appliance.start"))[0]
    assert entry.actor == "appliance"
    assert entry.details["desk_name"] == "Rail"
    assert entry.details["data_dir"] == str(tmp_path / "data")
    assert "port" not in entry.details, "only what differs from the defaults"
    written = json.dumps(dict(entry.details))
    assert "hunter2" not in written
    assert "abc" not in written
    assert entry.details["vllm_extra_args"] == ["--api-key=***"]
    assert entry.details["database_url"].startswith("postgresql+psycopg://***@")


async def test_the_log_is_read_in_pages(door: FrontDoor) -> None:
    for n in range(5):
        await door.appliance.audit.note("operator", "test.act", f"{n}", {"n": n})
    admin = door.keys["admin"]

    async def page(query: str) -> list[dict[str, Any]]:
        answer = await door.send("GET", f"{API}/audit?{query}", admin)
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    first = await page("limit=2&action=test.act")
    second = await page(f"limit=2&action=test.act&before={first[-1]['id']}")
    third = await page(f"limit=2&action=test.act&before={second[-1]['id']}")
    assert [e["target"] for e in first + second + third] == ["4", "3", "2", "1", "0"]
    assert await page(f"action=test.act&before={third[-1]['id']}") == []
    assert set(first[0]) == {"id", "created_at", "actor", "action", "target", "details"}
    assert {e["actor"] for e in await page("actor=operator")} == {"operator"}
    for bad in ("limit=0", "limit=201", "before=", "limit=x"):
        assert (await door.send("GET", f"{API}/audit?{bad}", admin)).status_code == 400, bad
    assert (await door.send("GET", f"{API}/audit?before=nothing", admin)).status_code == 404


async def test_pages_and_exports_follow_the_order_of_the_log(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "BATCH", 3)
    log = service.AuditLog(database)

    def many(records: Any) -> None:
        for n in range(8):  # within one microsecond, too: the id decides
            records.audit.add("operator", "test.act", str(n))

    await database.write(many)
    newest = await log.page(OPERATOR, limit=100)
    exported = [entry async for entry in log.export(OPERATOR)]
    assert exported == list(reversed(newest))
    assert len({entry.id for entry in exported}) == 8
    paged, before = [], None
    while found := await log.page(OPERATOR, limit=3, before=before):
        paged += found
        before = found[-1].id
    assert paged == list(newest)
    since = exported[5].created_at
    assert [e async for e in log.export(OPERATOR, since=since)][-3:] == exported[5:]
    late = [e async for e in log.export(OPERATOR, since=datetime(2999, 1, 1, tzinfo=UTC))]
    assert late == []
    with pytest.raises(NotFound):
        await log.page(OPERATOR, limit=3, before="nothing")
    agent = Principal("agent", "key:1")
    with pytest.raises(Forbidden):
        await log.page(agent, limit=3)
    with pytest.raises(Forbidden):
        await anext(aiter(log.export(agent)))


# --- the command line -----------------------------------------------------------------------------


def test_acts_on_the_command_line_are_the_operators(tmp_path: Path) -> None:
    desk = ApplianceProcess(None)
    try:
        desk.cli_json("db", "upgrade")
        desk.cli_json("kb", "import", str(FAQS))
        key = desk.cli_json("keys", "create", "--role", "agent", "--expires", "2999-01-01")
        listed = desk.cli_json("keys", "list")
        assert listed[0]["expires_at"] == "2999-01-01T00:00:00Z"
        desk.cli_json("keys", "revoke", key["id"])
        made = desk.cli_json("accounts", "create", "ada", "--role", "admin", "--generate")
        assert len(made["password"]) == 20
        for command in ("disable", "enable", "unlock"):
            assert desk.cli_json("accounts", command, "ADA")["username"] == "ada"
        again = desk.cli_json("accounts", "password", "ada", "--generate")
        assert again["password"] != made["password"]
        assert [a["username"] for a in desk.cli_json("accounts", "list")] == ["ada"]
        desk.cli_json("models", "use", "smollm2-135m")

        file = tmp_path / "audit.jsonl"
        assert desk.cli_json("audit", "export", str(file))["entries"] == 9
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        assert [line["action"] for line in lines] == [
            "kb.import",
            "key.create",
            "key.revoke",
            "account.create",
            "account.disable",
            "account.enable",
            "account.unlock",
            "account.password",
            "model.use",
        ]
        assert {line["actor"] for line in lines} == {"operator"}
        assert lines[0]["details"]["added"] == 30
        assert desk.cli("audit", "export").stdout == file.read_text("utf-8")
        newest = desk.cli_json("audit", "list", "--limit", "2")["items"]
        assert newest == [lines[-1], lines[-2]]
        plain = desk.cli("audit", "list", "--action", "kb.import")
        assert plain.returncode == 0
        assert "knowledge" in plain.stdout

        for arguments, status in {
            ("accounts", "create", "eve", "--role", "agent"): 2,  # no terminal to ask at
            ("accounts", "create", "eve", "--role", "agent", "--password-stdin"): 1,
            ("accounts", "create", "ada", "--role", "agent", "--generate"): 1,
            ("keys", "create", "--role", "agent", "--days", "1", "--expires", "2999-01-01"): 2,
            ("audit", "export", "--json"): 2,
        }.items():
            done = desk.cli(*arguments)
            assert done.returncode == status, (arguments, done.stderr)
            assert "Traceback" not in done.stderr
    finally:
        desk.clean()

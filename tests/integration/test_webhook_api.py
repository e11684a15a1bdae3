"""Webhooks over HTTP and by the commands, and the published schemas of what they deliver."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trustme
from standardwebhooks.webhooks import Webhook as Verifier

from appliance.api.app import create_app
from appliance.api.event_schemas import body_type, schema
from appliance.bootstrap import Appliance
from appliance.domain.events import DATA, EVENTS, TEST_EVENT
from appliance.knowledge.embedding import HashedEmbedder
from appliance.llm.scripted import ScriptedModel
from appliance.settings import Settings
from appliance.storage import migrate
from tests.appliance_process import COMMAND, ApplianceProcess, until
from tests.webhook_receivers import Receiver

pytestmark = pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning")

HOOKS = "/api/v1/webhooks/"
URL = "http://127.0.0.1:9/hook"
NEW = {"url": URL, "events": ["query.created", "kb.updated"]}


# --- over HTTP ------------------------------------------------------------------------------------


@pytest.fixture
async def appliance(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Appliance]:
    sockets = Path(tempfile.mkdtemp(prefix="hooks-", dir="/tmp"))
    settings = Settings(
        data_dir=tmp_path / "data", runtime_dir=sockets, webhook_allow=["127.0.0.1:*"]
    )
    settings.data_dir.mkdir()
    migrate.upgrade(settings.resolved_database_url)
    made = Appliance(settings, model=ScriptedModel(), embedder=HashedEmbedder())
    yield made
    await made.aclose()
    shutil.rmtree(sockets, ignore_errors=True)


@pytest.fixture
async def admin(appliance: Appliance) -> AsyncIterator[httpx.AsyncClient]:
    key = (await appliance.access.create_key("admin")).key
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=create_app(appliance)),
        base_url="http://desk",
        headers={"Authorization": f"Bearer {key}"},
    ) as client:
        yield client


async def made(admin: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await admin.post(HOOKS, json=NEW | changes)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.anyio
async def test_a_webhook_from_first_to_last(admin: httpx.AsyncClient) -> None:
    hook = await made(admin, description="CRM")
    secret = hook.pop("secret")
    assert secret.startswith("whsec_")
    path = f"{HOOKS}{hook['id']}"
    assert (await admin.get(path)).json() == hook
    # With and without the slash of the contract.
    for listing in (HOOKS, HOOKS.rstrip("/")):
        assert (await admin.get(listing)).json() == {"items": [hook]}

    changed = (await admin.put(path, json=NEW | {"events": ["kb.updated"]})).json()
    assert (changed["events"], changed["description"]) == (["kb.updated"], None)
    off = (await admin.put(path, json=NEW | {"active": False})).json()
    assert (off["active"], off["disabled_reason"]) == (False, "operator")
    assert (await admin.put(path, json=NEW)).json()["active"] is True

    rotated = await admin.post(f"{path}/rotate-secret")
    assert rotated.status_code == 200
    assert rotated.json()["secret"] not in (None, secret)
    assert rotated.json()["previous_secret_expires_at"] is not None

    test = await admin.post(f"{path}/test")
    assert test.status_code == 202
    delivery = test.json()
    assert (delivery["state"], delivery["event_type"]) == ("pending", TEST_EVENT)
    one = f"{HOOKS}deliveries/{delivery['id']}"
    assert (await admin.get(one)).json() == delivery
    listed = await admin.get(f"{path}/deliveries", params={"status": "pending", "limit": 1})
    assert listed.json() == {"items": [delivery]}
    behind = await admin.get(f"{path}/deliveries", params={"after": delivery["id"]})
    assert behind.json() == {"items": []}
    again = await admin.post(f"{one}/redeliver")
    assert (again.status_code, again.json()["event_id"]) == (202, delivery["event_id"])
    ranged = await admin.post(f"{path}/redeliver", json={"since": "2026-01-01T00:00:00Z"})
    assert (ranged.status_code, ranged.json()) == (202, {"requeued": 0})

    assert (await admin.delete(path)).status_code == 204
    for gone in (path, one, f"{path}/deliveries"):
        assert (await admin.get(gone)).status_code == 404


@pytest.mark.anyio
async def test_what_is_refused_says_why(admin: httpx.AsyncClient) -> None:
    hook = await made(admin)
    path = f"{HOOKS}{hook['id']}"
    key = trustme.CA().issue_cert("x").private_key_pem.bytes().decode()
    for method, target, body, code in [
        ("POST", HOOKS, NEW | {"url": "http://10.0.0.1/"}, "receiver_refused"),
        ("POST", HOOKS, NEW | {"url": "http://169.254.169.254/"}, "receiver_refused"),
        ("POST", HOOKS, NEW | {"url": "http://0x7f000001:9/"}, "receiver_refused"),
        ("PUT", path, NEW | {"url": "ftp://127.0.0.1/"}, "receiver_refused"),
        ("POST", HOOKS, NEW | {"ca_pem": key}, "receiver_refused"),
        ("POST", HOOKS, NEW | {"events": []}, "invalid_input"),
        ("POST", HOOKS, NEW | {"events": [TEST_EVENT]}, "invalid_input"),
        ("POST", HOOKS, NEW | {"secret": "whsec_mine"}, "invalid_input"),
        ("POST", HOOKS, {"events": ["kb.updated"]}, "invalid_input"),
        ("POST", f"{path}/rotate-secret", {"overlap_hours": 1000}, "invalid_input"),
        ("POST", f"{path}/redeliver", {}, "invalid_input"),
        ("POST", f"{path}/redeliver", {"since": "2026-01-01T00:00:00"}, "invalid_input"),
        ("POST", f"{path}/redeliver", {"since": "2999-01-01T00:00:00Z"}, "invalid_input"),
        (
            "POST",
            f"{path}/redeliver",
            {"since": "2026-01-01T00:00:00Z", "states": ["pending"]},
            "invalid_input",
        ),
        ("GET", f"{path}/deliveries?status=nothing", None, "invalid_input"),
        ("GET", f"{path}/deliveries?limit=0", None, "invalid_input"),
    ]:
        answer = await admin.request(method, target, json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, code), (target, body)
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await admin.get(HOOKS)).json()["items"] == [
        {name: value for name, value in hook.items() if name != "secret"}
    ]
    off = await admin.put(path, json=NEW | {"active": False})
    assert off.status_code == 200
    conflict = await admin.post(f"{path}/redeliver", json={"since": "2026-01-01T00:00:00Z"})
    assert (conflict.status_code, conflict.json()["code"]) == (409, "conflict")


# --- what is published ----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_schemas_are_there_without_a_key(admin: httpx.AsyncClient) -> None:
    admin.headers.pop("Authorization")
    index = (await admin.get("/docs/events")).json()
    assert set(index["events"]) == {*EVENTS, TEST_EVENT}
    for event_type, path in index["events"].items():
        answer = await admin.get(path)
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == schema(event_type)
        assert answer.json()["$id"] == path
    assert (await admin.get("/docs/events/nothing.json")).status_code == 404
    described = (await admin.get("/docs/openapi.json")).json()
    assert "/docs/events" in described["info"]["description"]
    assert (await admin.get("/docs")).status_code == 200


def test_a_schema_names_every_field_of_a_body() -> None:
    for event_type, data in DATA.items():
        made = schema(event_type)
        assert set(made["required"]) == {"id", "type", "version", "timestamp", "data"}
        assert made["properties"]["type"] == {"enum": [event_type]}
        assert made["properties"]["timestamp"]["format"] == "date-time"
        assert made["description"]
        part = made["$defs"][made["properties"]["data"]["$ref"].rpartition("/")[2]]
        assert set(part["properties"]) == {field.name for field in fields(data)}
        assert set(part["required"]) == set(part["properties"])


@pytest.mark.anyio
async def test_what_is_sent_is_what_its_schema_says(
    admin: httpx.AsyncClient, appliance: Appliance
) -> None:
    hook = await made(admin)
    sent = (await admin.post(f"{HOOKS}{hook['id']}/test")).json()
    delivery = await appliance.database.read(lambda records: records.deliveries.get(sent["id"]))
    assert delivery is not None
    body = msgspec.json.decode(delivery.body, type=body_type(TEST_EVENT))
    assert msgspec.json.decode(msgspec.json.encode(body)) == json.loads(delivery.body) | {
        "timestamp": body.timestamp.isoformat().replace("+00:00", "Z")
    }


# --- by the commands ------------------------------------------------------------------------------


@pytest.fixture
def desk() -> Iterator[ApplianceProcess]:
    """An empty desk of which nothing runs."""
    desk = ApplianceProcess(None, environment={"APPLIANCE_WEBHOOK_ALLOW": "127.0.0.1:*"})
    try:
        desk.cli_json("db", "upgrade")
        yield desk
    finally:
        desk.clean()


@pytest.mark.loopback
def test_the_commands_and_a_worker(desk: ApplianceProcess) -> None:
    """The secret that is shown is the one that a worker of the same folder signs with."""
    refused = desk.cli("webhooks", "create", "http://10.0.0.1/", "--all-events")
    assert refused.returncode == 1, refused.stderr
    assert "APPLIANCE_WEBHOOK_ALLOW" in refused.stderr
    assert desk.cli("webhooks", "create", URL).returncode == 2
    ca = desk.folder / "ca.pem"
    trustme.CA().cert_pem.write_to_path(ca)
    with Receiver() as receiver:
        hook = desk.cli_json(
            *("webhooks", "create", receiver.url, "--event", "kb.updated", "--ca", str(ca))
        )
        assert hook["ca_pem"] == ca.read_text()
        assert desk.cli_json("webhooks", "list")["items"][0]["id"] == hook["id"]
        changed = desk.cli_json("webhooks", "update", hook["id"], "--all-events", "--no-ca")
        assert (changed["url"], changed["ca_pem"]) == (receiver.url, None)
        assert changed["events"] == [*EVENTS]
        assert desk.cli_json("webhooks", "show", hook["id"]) == changed
        rotated = desk.cli_json("webhooks", "rotate", hook["id"])

        waits = desk.cli("webhooks", "test", hook["id"], "--wait", "0.5")
        assert (waits.returncode, "appliance worker" in waits.stderr) == (1, True)
        worker = subprocess.Popen(
            [*COMMAND, "worker"],
            env=desk.environment,
            cwd=desk.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            sent = desk.cli_json("webhooks", "test", hook["id"])
            assert (sent["state"], sent["attempts"][0]["response"]) == ("delivered", "ok")
            listed = desk.cli_json("webhooks", "deliveries", hook["id"], "--status", "delivered")
            assert sent in listed["items"]
            again = desk.cli_json("webhooks", "redeliver", sent["id"])
            assert again["event_id"] == sent["event_id"]
            until(lambda: receiver.counts[sent["event_id"]] == 2, "its second delivery")
            ranged = ("--webhook", hook["id"], "--since", "2020-01-01")
            assert desk.cli_json("webhooks", "redeliver", *ranged) == {"requeued": 0}
        finally:
            worker.terminate()
            worker.wait(60)
        for secret in (hook["secret"], rotated["secret"]):
            Verifier(secret).verify(receiver.received[-1].body, receiver.received[-1].headers)
        assert json.loads(receiver.received[-1].body) == sent["payload"]
    off = desk.cli_json("webhooks", "update", hook["id"], "--off")
    assert (off["active"], off["disabled_reason"]) == (False, "operator")
    assert desk.cli_json("webhooks", "delete", hook["id"])["deleted"] is True
    assert desk.cli("webhooks", "show", hook["id"]).returncode == 1

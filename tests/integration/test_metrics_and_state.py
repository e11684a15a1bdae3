"""What the appliance tells of itself: metrics and who may read them, readiness part by part, the
read-only mode, and one id for a request everywhere."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance.api.app import create_app
from appliance.errors import StorageUnavailable
from appliance.llm.interface import ModelHealth
from appliance.llm.scripted import ScriptedModel
from appliance.operations.monitor import Monitor
from appliance.settings import HOME
from appliance.storage import Database
from appliance.storage.deliveries import DeliveryRepository
from appliance.storage.records import Worker
from tests.integration.test_api_contract import (  # noqa: F401 - fixtures among them
    API,
    PASSWORD,
    Desk,
    Template,
    assert_problem,
    desk,
    opened,
    reach,
    runtime_dir,
    template,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning"),
]

Usage = namedtuple("Usage", "total used free")


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every series and its value, read by Prometheus' own parser."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def metrics(desk: Desk) -> dict[Any, float]:  # noqa: F811
    answer = await desk.send("GET", "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return samples(answer.text)


def value(found: dict[Any, float], name: str, **labels: str) -> float:
    return found[f"appliance_{name}", tuple(sorted(labels.items()))]


# --- metrics --------------------------------------------------------------------------------------


async def test_a_query_moves_the_counters(desk: Desk) -> None:  # noqa: F811
    answer = await desk.ask(desk.keys["customer"])
    await desk.ask(desk.keys["customer"], "I demand a refund now, or my lawyer will write to you")
    found = await metrics(desk)
    metadata = answer["metadata"]
    assert value(
        found, "queries_total", outcome="answered", mode="drafted", category=answer["category"]
    )
    assert value(found, "escalations_total", reason="phrase") == 1
    for kind, count in metadata["tokens"].items():
        assert value(found, "tokens_total", kind=kind) == count
    for stage in metadata["stages"]:
        assert value(found, "stage_seconds_count", stage=stage) >= 1
    assert value(found, "query_seconds_count", mode="drafted") == 1
    assert value(found, "model_waits_total", result="placed") == 1
    assert value(found, "queries_under_way") == 0
    assert (
        value(found, "http_requests_total", method="POST", route=f"{API}/query", status="200") == 2
    )
    assert value(found, "storage_seconds_count", kind="write") >= 4
    assert value(found, "engine_state", state="ok") == 1
    assert value(found, "up", part="writable") == 1
    assert value(found, "disk_free_bytes") > value(found, "disk_reserve_bytes") > 0


async def test_labels_do_not_grow_with_what_is_asked_for(desk: Desk) -> None:  # noqa: F811
    admin = desk.keys["admin"]
    await desk.send("GET", f"{API}/users/0", admin)
    await desk.send("GET", "/nothing/0", admin)
    before = (await metrics(desk)).keys()
    for number in range(1, 30):
        await desk.send("GET", f"{API}/users/{number}", admin)
        await desk.send("GET", f"{API}/kb/search?q=words{number}", admin)
        await desk.send("GET", f"/nothing/{number}", admin)
        await desk.send("PURGE", f"/nothing/{number}", admin)
    new = (await metrics(desk)).keys() - before
    assert all("words" not in str(series) and "/users/1" not in str(series) for series in new)
    assert len({labels for _, labels in new}) < 40


@pytest.mark.parametrize(
    ("client", "headers", "who", "access", "status"),
    [
        ("127.0.0.1", {}, None, "local", 200),
        ("::1", {}, None, "local", 200),
        ("192.168.0.7", {}, None, "local", 401),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, None, "local", 401),
        ("127.0.0.1", {"Forwarded": "for=1.2.3.4"}, None, "local", 401),
        ("127.0.0.1", {}, None, "key", 401),
        ("192.168.0.7", {}, "admin", "local", 200),
        ("192.168.0.7", {}, "agent", "local", 403),
        ("192.168.0.7", {}, "customer", "key", 403),
        ("127.0.0.1", {}, "admin", "key", 200),
    ],
)
async def test_who_may_read_metrics(
    template: Template,  # noqa: F811
    tmp_path: Path,
    client: str,
    headers: dict[str, str],
    who: str | None,
    access: str,
    status: int,
) -> None:
    async with opened(template, tmp_path, wait=False, metrics_access=access) as desk:  # noqa: F811
        app = create_app(desk.appliance)
        transport = httpx.ASGITransport(app=app, client=(client, 1234))
        sent = headers | (desk.keys[who] if who else {})
        async with httpx.AsyncClient(transport=transport, base_url="http://desk") as asking:
            assert (await asking.get("/metrics", headers=sent)).status_code == status


async def test_every_query_of_the_dashboard_has_its_metric(desk: Desk) -> None:  # noqa: F811
    board = json.loads((HOME / "docs" / "grafana-dashboard.json").read_text())
    await desk.ask(desk.keys["customer"])
    families = text_string_to_metric_families(desk.appliance.metrics.exposition().decode())
    kinds = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
    known = {family.name + kind for family in families for kind in kinds[family.type]}
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    assert len(asked) >= 15
    named: set[str] = set()
    for expression in asked:
        names = re.findall(r"\bappliance_\w+", expression)
        assert names, expression
        for name in names:
            assert name in known, f"{name} in {expression}"
        named.update(names)
        assert expression.count("(") == expression.count(")"), expression
    for part in ("deliveries", "limited", "stage_seconds", "tokens", "up", "storage", "engine"):
        assert any(part in name for name in named), part


# --- readiness ------------------------------------------------------------------------------------


class Beats:
    """A worker that a test tells how it is."""

    def __init__(self) -> None:
        self.state: Any = "ok"

    async def __call__(self) -> Any:
        return self.state


async def ready(desk: Desk) -> tuple[int, dict[str, Any]]:  # noqa: F811
    await desk.appliance.monitor.look()
    answer = await desk.send("GET", f"{API}/ready")
    return answer.status_code, answer.json()


async def test_each_part_is_told_apart(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status, seen = await ready(desk)
    assert (status, seen["status"]) == (200, "ready")

    desk.model.fail_after = 0
    status, seen = await ready(desk)
    assert (status, seen["engine"], seen["database"]) == (200, "down", "ok")

    desk.change_database("UPDATE alembic_version SET version_num = '202611221000'")
    status, seen = await ready(desk)
    assert (status, seen["status"], seen["migrations"]) == (503, "unavailable", "behind")


async def test_a_database_that_takes_no_writes_is_not_ready(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(_: Any) -> None:
        raise StorageUnavailable("told to fail")

    monkeypatch.setattr(desk.appliance.database, "write", refuse)
    status, seen = await ready(desk)
    assert (status, seen["status"]) == (503, "unavailable")
    assert (seen["writable"], seen["database"]) == ("down", "ok")
    assert (await desk.send("GET", f"{API}/health")).status_code == 200
    monkeypatch.undo()
    assert (await ready(desk))[1]["status"] == "ready"


async def test_the_worker_is_known_by_its_signs_of_life(sqlite_database: Database) -> None:
    async def seen() -> str:
        monitor = Monitor(ScriptedModel(), sqlite_database, lambda: True)
        found = (await monitor.look()).worker
        await monitor.stop()
        return found

    async def beat(at: datetime) -> None:
        worker = Worker("place:1", "desk.lan", 4711, at, at)
        await sqlite_database.write(lambda records: records.workers.beat(worker))

    assert await seen() == "unknown"
    await beat(datetime.now(UTC))
    assert await seen() == "ok"
    await beat(datetime.now(UTC) - timedelta(minutes=5))
    assert await seen() == "down"
    await sqlite_database.write(lambda records: records.workers.leave("place:1"))
    assert await seen() == "unknown"


async def test_a_part_that_hangs_holds_up_nothing(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.operations.monitor.PATIENCE_SECONDS", 0.05)
    begun = 0

    class Hanging(ScriptedModel):
        async def health(self) -> ModelHealth:
            nonlocal begun
            begun += 1
            await asyncio.Event().wait()
            raise AssertionError

    def fail(_: Any) -> Any:
        raise RuntimeError("told to fail")

    monkeypatch.setattr(DeliveryRepository, "counts", fail)
    monitor = Monitor(Hanging(), sqlite_database, lambda: True)
    await asyncio.sleep(0)
    for _ in range(3):
        await monitor.look()
    # Not begun again beside itself.
    assert begun == 1
    assert monitor.seen.model.state == "down"
    await monitor.stop()


# --- a disk that fills up -------------------------------------------------------------------------


async def test_a_full_disk_makes_it_read_only_until_there_is_space(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = await desk.ask(desk.keys["customer"])
    reserve = desk.appliance.settings.disk_reserve_mib * 2**20
    free = reserve - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2 * reserve, 0, free))
    status, seen = await ready(desk)
    assert (status, seen["status"], seen["disk"]) == (503, "read_only", "low")

    body = {"user_id": "u", "message": PASSWORD}
    before = (await desk.send("GET", f"{API}/stats", desk.keys["admin"])).json()["queries"]
    for path in ("/query", "/query/stream", f"/conversations/{mine['conversation_id']}/escalate"):
        refused = await desk.send("POST", API + path, desk.keys["customer"], json=body)
        told = assert_problem(refused, 507, "read_only")
        assert int(refused.headers["retry-after"]) >= 1
        assert "APPLIANCE_DISK_RESERVE_MIB" in told["hint"]
    put = await desk.send("PUT", f"{API}/users/u", desk.keys["admin"], json={"vip": True})
    assert_problem(put, 507, "read_only")
    # Reading goes on, and deleting, which makes space.
    path = f"{API}/conversations/{mine['conversation_id']}"
    assert (await desk.send("GET", path, desk.keys["customer"])).status_code == 200
    searched = await desk.send("GET", f"{API}/kb/search?q=refund", desk.keys["customer"])
    assert searched.status_code == 200
    deleted = await desk.send("DELETE", f"{API}/users/customer-1", desk.keys["admin"])
    assert deleted.status_code == 204
    assert (await metrics(desk))["appliance_read_only", ()] == 1

    # A little above the mark is not enough: the two states would alternate.
    free = reserve + 1
    assert (await ready(desk))[1]["disk"] == "low"
    free = 2 * reserve
    status, seen = await ready(desk)
    assert (status, seen["disk"]) == (200, "ok")
    await desk.ask(desk.keys["customer"])
    after = (await desk.send("GET", f"{API}/stats", desk.keys["admin"])).json()["queries"]
    assert after == before  # one was forgotten with its user, one came


# --- requests -------------------------------------------------------------------------------------


async def test_a_request_keeps_the_id_it_came_with(desk: Desk) -> None:  # noqa: F811
    given = await desk.send("GET", f"{API}/health", {"X-Request-ID": "shop-4711.a:b_c"})
    assert given.headers["x-request-id"] == "shop-4711.a:b_c"
    for odd in ("", "a b", "x" * 65, "line\tbreak", "<script>"):
        made = await desk.send("GET", f"{API}/health", {"X-Request-ID": odd})
        assert re.fullmatch("[0-9a-f]{32}", made.headers["x-request-id"]), odd
    refused = await desk.send("GET", "/nothing", {"X-Request-ID": "mine"})
    assert (refused.status_code, refused.headers["x-request-id"]) == (404, "mine")


async def test_a_body_that_does_not_arrive_is_given_up(
    template: Template,  # noqa: F811
    tmp_path: Path,
) -> None:
    async def dripping() -> Any:
        yield b'{"user_id": '
        await asyncio.sleep(60)

    async with opened(template, tmp_path, request_seconds=0.2) as desk:  # noqa: F811
        headers = desk.keys["customer"] | {"Content-Type": "application/json"}
        answer = await desk.client.post(f"{API}/query", headers=headers, content=dripping())
        assert_problem(answer, 408, "too_slow")


async def test_more_requests_than_fit_are_told_to_come_back(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("appliance.api.gate.REQUESTS_MAX", 2)
    held = asyncio.Event()

    async def held_up(*_: Any, **__: Any) -> list[Any]:
        await held.wait()
        return []

    monkeypatch.setattr(desk.appliance.users, "page", held_up)
    admin = desk.keys["admin"]
    waiting = [asyncio.create_task(desk.send("GET", f"{API}/users", admin)) for _ in range(2)]
    await asyncio.sleep(0.2)
    refused = await desk.send("GET", f"{API}/users", admin)
    assert_problem(refused, 429, "rate_limited")
    assert refused.headers["retry-after"]
    for probe in (f"{API}/health", f"{API}/ready", "/metrics"):
        assert (await desk.send("GET", probe)).status_code == 200
    held.set()
    assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200, 200]


def test_one_id_finds_a_query_and_no_line_holds_what_a_customer_wrote(tmp_path: Path) -> None:
    """A whole query in a process of its own, as it is logged at info level."""
    program = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        import httpx
        from appliance.api.app import create_app
        from appliance.bootstrap import Appliance
        from appliance.knowledge.embedding import HashedEmbedder
        from appliance.knowledge.importers import read_faqs
        from appliance.llm.scripted import ScriptedModel
        from appliance.logs import configure_logs
        from appliance.services.knowledge import save_articles
        from appliance.settings import HOME, Settings
        from appliance.storage import migrate

        async def main(folder):
            configure_logs("info", process="api")
            settings = Settings(data_dir=folder, runtime_dir=folder / "run")
            migrate.upgrade(settings.resolved_database_url)
            model = ScriptedModel(["Marzipan is what the model wrote about it."])
            appliance = Appliance(settings, model=model, embedder=HashedEmbedder())
            await save_articles(appliance.database, read_faqs(HOME / "kb/faqs.json"), replace=True)
            key = (await appliance.access.create_key("customer")).key
            app = create_app(appliance)
            transport = httpx.ASGITransport(app=app)
            async with app.lifespan():
                while not appliance.is_ready:
                    await asyncio.sleep(0.05)
                async with httpx.AsyncClient(transport=transport, base_url="http://d") as client:
                    for path, message in (("/query", "How do I reset my password? Kaleidoscope."),
                                          ("/query/stream", "Kaleidoscope: my lawyer will sue")):
                        answer = await client.post(
                            "/api/v1" + path,
                            headers={"Authorization": f"Bearer {key}", "X-Request-ID": "walrus-7"},
                            json={"user_id": "Xanthippe", "message": message},
                        )
                        assert answer.status_code == 200, answer.text
                    search = await client.get(
                        "/api/v1/kb/search?q=Kaleidoscope",
                        headers={"Authorization": f"Bearer {key}"},
                    )
                    assert search.status_code == 200
            assert any("Kaleidoscope" in str(call) for call in model.calls)

        asyncio.run(main(Path(sys.argv[1])))
        """
    )
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    ran = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=200
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    mine = [line for line in lines if line.get("request") == "walrus-7"]
    events = [line["event"] for line in mine]
    assert events.count("query_answered") == 2
    assert events.count("request") == 2
    assert {line["route"] for line in mine if line["event"] == "request"} == {
        "/api/v1/query",
        "/api/v1/query/stream",
    }
    assert all(line["query"] for line in mine if line["event"] == "query_answered")
    for words in ("kaleidoscope", "marzipan", "lawyer", "xanthippe", "reset my"):
        assert words not in ran.stderr.lower(), words

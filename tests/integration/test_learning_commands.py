"""Learning as people use it: over HTTP and by the commands, with a twin that embeds."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.api.app import create_app
from appliance.bootstrap import Appliance
from appliance.knowledge.embedding import HashedEmbedder
from appliance.knowledge.importers import read_faqs
from appliance.llm.scripted import ScriptedModel
from appliance.services.knowledge import save_articles
from appliance.settings import HOME, Settings
from appliance.storage import migrate
from tests.appliance_process import FAQS, ApplianceProcess

STRANGE = "Does the turbine at the northern ridge cast shadows on the school?"

pytestmark = pytest.mark.filterwarnings("ignore::litestar.exceptions.LitestarDeprecationWarning")

# --- over HTTP ------------------------------------------------------------------------------------


class Served:
    """An application in this process, and a key for each role."""

    def __init__(self, appliance: Appliance, client: httpx.AsyncClient) -> None:
        self.appliance = appliance
        self.client = client
        self.keys: dict[str, dict[str, str]] = {}

    async def send(self, path: str, role: str, body: Any) -> httpx.Response:
        return await self.client.post(f"/api/v1{path}", headers=self.keys[role], json=body)

    async def ask(self, text: str) -> dict[str, Any]:
        answer = await self.send("/query", "customer", {"user_id": "ada", "message": text})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
async def served(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Served]:
    sockets = Path(tempfile.mkdtemp(prefix="learn-", dir="/tmp"))
    settings = Settings(data_dir=tmp_path / "data", runtime_dir=sockets)
    settings.data_dir.mkdir()
    migrate.upgrade(settings.resolved_database_url)
    appliance = Appliance(settings, model=ScriptedModel(), embedder=HashedEmbedder())
    await save_articles(appliance.database, read_faqs(FAQS), replace=True)
    await appliance.prepare()
    transport = httpx.ASGITransport(app=create_app(appliance))
    async with httpx.AsyncClient(transport=transport, base_url="http://desk") as client:
        served = Served(appliance, client)
        for role in ("customer", "agent", "admin"):
            made = await appliance.access.create_key(role)
            served.keys[role] = {"Authorization": f"Bearer {made.key}"}
        yield served
    await appliance.aclose()
    shutil.rmtree(sockets)


@pytest.mark.anyio
async def test_a_correction_changes_the_answer_to_the_same_question(served: Served) -> None:
    answer = await served.ask(STRANGE)
    other = "Account" if answer["category"] != "Account" else "Billing"
    path = f"/messages/{answer['message_id']}/correction"
    done = await served.send(path, "agent", {"category": other})
    assert done.status_code == 200, done.text
    told = done.json()
    assert (told["text"], told["category"], told["sentiment"]) == (STRANGE, other, None)
    assert told["source"] == "correction"
    assert told["message_id"] != answer["message_id"]
    before = served.appliance.ready.retraining
    assert (await before.retrain()).version == 1
    again = await served.ask(STRANGE)
    assert (again["category"], again["metadata"]["category_confidence"]) == (other, 1.0)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("role", "body", "status", "code"),
    [
        ("customer", {"category": "Billing"}, 403, "forbidden"),
        ("agent", {}, 400, "invalid_input"),
        ("agent", {"category": "Sales"}, 400, "invalid_input"),
        ("agent", {"sentiment": "Sad"}, 400, "invalid_input"),
        ("admin", {"category": "Billing", "colour": "red"}, 400, "invalid_input"),
    ],
)
async def test_a_bad_correction_is_refused(
    served: Served, role: str, body: Any, status: int, code: str
) -> None:
    answer = await served.ask(STRANGE)
    done = await served.send(f"/messages/{answer['message_id']}/correction", role, body)
    assert (done.status_code, done.json()["code"]) == (status, code)


@pytest.mark.anyio
async def test_an_unknown_message_is_not_found(served: Served) -> None:
    done = await served.send(f"/messages/{'0' * 32}/correction", "agent", {"intent": "question"})
    assert (done.status_code, done.json()["code"]) == (404, "not_found")


# --- by the commands ------------------------------------------------------------------------------


@pytest.fixture
def desk(prepared_home: Path) -> Iterator[ApplianceProcess]:
    """A desk that has answered nothing yet; no appliance runs."""
    desk = ApplianceProcess(prepared_home)
    try:
        desk.cli_json("db", "upgrade")
        yield desk
    finally:
        desk.clean()


def write(desk: ApplianceProcess, *lines: Any) -> str:
    file = desk.folder / "lines.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    return str(file)


def test_import_retrain_status_and_rollback(desk: ApplianceProcess) -> None:
    status = desk.cli_json("learn", "status")
    assert (status["version"], status["pending"], status["versions"]) == (0, False, [])
    lines = (
        {"text": STRANGE, "category": "Account", "sentiment": "Negative"},
        {"text": f"{STRANGE.upper()}", "category": "Account", "sentiment": "Negative"},
    )
    assert desk.cli_json("learn", "import", write(desk, *lines)) == {"added": 1, "ignored": 1}
    bad = desk.cli("learn", "import", write(desk, lines[0], {"text": "x", "category": "Sales"}))
    assert (bad.returncode, "line 2" in bad.stderr) == (1, True)

    status = desk.cli_json("learn", "status")
    assert status["examples"]["category"] == {"Account": 1}
    assert status["examples"]["sentiment"] == {"Negative": 1}
    assert (status["sources"], status["pending"]) == ({"import": 1}, True)
    done = desk.cli_json("learn", "retrain")
    assert (done["version"], done["switched"]) == (1, True)
    assert {v["head"]: v["kept"] for v in done["verdicts"]} == {
        "category": True,
        "sentiment": True,
    }
    told = desk.cli("learn", "status").stdout
    assert told.startswith("Version 1 is in charge since 2")
    assert "kept" in told

    assert desk.cli_json("learn", "rollback") == {"version": 0}
    assert not desk.cli_json("learn", "status")["pending"]
    again = desk.cli("learn", "rollback", "shipped")
    assert (again.returncode, "in charge already" in again.stderr) == (1, True)
    assert desk.cli("learn", "rollback", "1").stdout == "Version 1 is in charge.\n"
    assert desk.cli("learn", "rollback", "newest").returncode == 2


def test_correct_by_the_command(desk: ApplianceProcess) -> None:
    done = desk.cli("learn", "correct", "nothing", "--category", "Billing")
    assert (done.returncode, "no such message" in done.stderr) == (1, True)
    assert desk.cli("learn", "correct", "nothing").returncode == 2
    assert desk.cli("learn", "correct", "nothing", "--category", "Sales").returncode == 2


def test_golden_build_add_list_and_remove(desk: ApplianceProcess) -> None:
    desk.cli_json("kb", "import", str(FAQS))
    built = desk.cli_json("golden", "build")
    listed = desk.cli_json("golden", "list")["items"]
    assert built["items"] == {"articles": len(listed)}
    assert len(listed) + built["training"] == len(read_faqs(FAQS))
    assert desk.cli("golden", "add", STRANGE, "--category", "Account").stdout == "1 added.\n"
    trained = json.loads((HOME / "kb" / "examples.jsonl").read_text("utf-8").splitlines()[0])
    shipped = desk.cli("golden", "add", trained["text"], "--category", "Account")
    assert (shipped.returncode, "measures nothing" in shipped.stderr) == (1, True)
    file = write(desk, {"text": "My tariff is wrong", "escalate": False, "source": "mails"})
    assert desk.cli_json("golden", "add", "--file", file) == {"added": 1, "training": 0}
    assert desk.cli("golden", "add", STRANGE).returncode == 2
    assert desk.cli("golden", "add", STRANGE, "--file", file).returncode == 2
    assert desk.cli_json("golden", "remove", "--source", "articles")["removed"] == len(listed)
    left = desk.cli_json("golden", "list")["items"]
    assert [(each["source"], each["text"]) for each in left] == [
        ("added", STRANGE),
        ("mails", "My tariff is wrong"),
    ]
    assert desk.cli_json("golden", "remove", left[0]["id"]) == {"removed": 1}
    assert desk.cli("golden", "remove", left[0]["id"]).returncode == 1
    assert desk.cli("golden", "remove").returncode == 2

"""``appliance answers`` on a desk that runs: explained, replayed on the real model, forgotten,
tampered with."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.appliance_process import ApplianceProcess, MakeAppliance

# The first test of a session waits for the engine's first start.
pytestmark = [pytest.mark.loopback, pytest.mark.timeout(900)]

PASSWORD = "How do I reset my password?"


@pytest.fixture(scope="module")
def desk(make_module_appliance: MakeAppliance) -> ApplianceProcess:
    return make_module_appliance()


@pytest.fixture(scope="module")
def answer(desk: ApplianceProcess) -> dict[str, Any]:
    return desk.ask(PASSWORD, user="ada-of-the-zebras")


def id_of(desk: ApplianceProcess, answer: dict[str, Any]) -> str:
    with desk.client("agent") as client:
        found = client.get(f"/conversations/{answer['conversation_id']}/messages").json()
    last: str = found["items"][-1]["id"]
    return last


def test_an_answer_is_explained(desk: ApplianceProcess, answer: dict[str, Any]) -> None:
    name = id_of(desk, answer)
    shown = desk.cli_json("answers", "show", name)
    made_with = shown["content"]["made_with"]
    with desk.client("agent") as client:
        served = client.get("/ready").json()
        assert client.get(f"/answers/{name}/record").json() == shown
    assert (made_with["model"], made_with["weights"]) == (served["model"], served["sha256"])
    assert all(made_with[part] for part in ("encoder", "heads", "index", "prompts"))
    assert made_with["settings"]["answer_mode"] == "drafted"
    assert made_with["runtime"]["llama-cpp-python"]
    assert shown["personal"]["answer"]["response"] == answer["response"]
    told = desk.cli("answers", "show", name).stdout
    for words in (PASSWORD, answer["response"][-40:], made_with["weights"][:12], "Account"):
        assert words in told
    (listed,) = desk.cli_json("answers", "list", "--limit", "1")["items"]
    assert (listed["message_id"], listed["message"]) == (name, PASSWORD)
    assert name in desk.cli("answers", "list").stdout


def test_an_answer_comes_out_the_same_until_the_articles_change(
    desk: ApplianceProcess, answer: dict[str, Any], tmp_path: Path
) -> None:
    name = id_of(desk, answer)
    replayed = desk.cli_json("answers", "replay", name)
    assert replayed["same"] is True
    assert replayed["underneath"] == []

    articles = desk.cli_json("kb", "list")["faqs"]
    (article,) = (article for article in articles if article["id"] == "21")
    changed = article | {"answer": f"Call us at once. {article['answer']}"}
    file = tmp_path / "changed.json"
    file.write_text(json.dumps({"faqs": [changed]}))
    desk.cli_json("kb", "import", str(file))
    done = desk.cli("answers", "replay", name, "--json")
    replayed = json.loads(done.stdout)
    assert (done.returncode, replayed["same"]) == (1, False)
    assert "knowledge_digest" in [difference["what"] for difference in replayed["underneath"]]
    assert "passages.21.digest" in [difference["what"] for difference in replayed["differences"]]
    plain = desk.cli("answers", "replay", name)
    assert plain.returncode == 1
    assert "knowledge_digest" in plain.stdout
    assert len(desk.cli_json("answers", "list")["items"]) == 1
    assert desk.cli("answers", "replay", "nothing").returncode == 1


def test_a_person_is_forgotten_and_the_chain_verifies(
    desk: ApplianceProcess, answer: dict[str, Any]
) -> None:
    head = desk.cli_json("answers", "verify")["head"]
    with desk.client("admin") as client:
        assert client.delete("/users/ada-of-the-zebras").status_code == 204
    desk.ask(PASSWORD, user="bob")
    verdict = desk.cli_json("answers", "verify", "--expect", head)
    assert (verdict["sound"], verdict["records"], verdict["erased"]) == (True, 2, [1])
    assert "erased" in desk.cli("answers", "show", "1").stdout
    assert desk.cli("answers", "replay", "1").returncode == 1
    assert desk.cli("answers", "verify", "--expect", "nonsense").returncode == 2


def test_tampering_is_told(desk: ApplianceProcess, answer: dict[str, Any]) -> None:
    with closing(sqlite3.connect(desk.data_dir / "appliance.db")) as database, database:
        with pytest.raises(sqlite3.IntegrityError, match="never changed"):
            database.execute("UPDATE answer_records SET content = '{}'")
        database.execute("DROP TRIGGER answer_records_erase_only")
        database.execute("UPDATE answer_records SET content = replace(content, 'Account', 'Other')")
    done = desk.cli("answers", "verify")
    assert done.returncode == 1
    assert "record 1: changed" in done.stdout
    assert "record 2: changed" in done.stdout
    assert "NOT SOUND" in done.stdout
    one = desk.cli("answers", "verify", "2", "--json")
    assert one.returncode == 1
    assert [finding["record"] for finding in json.loads(one.stdout)["findings"]] == [2]

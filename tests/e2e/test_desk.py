"""The whole desk, everything real: processes, weights, sockets, database, command line."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.operations.engine_keeper import health as engine_health
from tests.appliance_process import (
    COMMAND,
    FAQS,
    ApplianceProcess,
    MakeAppliance,
    processes_of,
    read_events,
    until,
)

# The first test of a session waits for the engine's first start.
pytestmark = [pytest.mark.loopback, pytest.mark.timeout(900)]

PASSWORD = "How do I reset my password?"
QUESTIONS = [
    PASSWORD,
    "What is your refund policy?",
    "Which payment methods do you accept?",
    "How does offline mode work?",
    "Which languages do you support?",
    "How do I delete my account?",
]


def cited(answer: dict[str, Any]) -> list[str]:
    return [citation["id"] for citation in answer["metadata"]["citations"]]


# --- what customers get ---------------------------------------------------------------------------


def test_a_crash_is_technical(appliance: ApplianceProcess) -> None:
    answer = appliance.ask("My app keeps crashing when I try to export", user="crash")
    assert answer["category"] == "Technical"
    assert answer["metadata"]["outcome"] == "answered"
    assert cited(answer) == ["1"]
    assert answer["metadata"]["escalated"] is False


def test_a_double_charge_is_billing(appliance: ApplianceProcess) -> None:
    answer = appliance.ask("Why was I charged twice this month?", user="charge")
    assert answer["category"] == "Billing"
    assert answer["metadata"]["kb_results"][0]["id"] == "11"
    assert answer["metadata"]["escalated"] is False


def test_anger_is_seen_and_escalated(appliance: ApplianceProcess) -> None:
    answer = appliance.ask("THIS IS UNACCEPTABLE! I DEMAND A REFUND NOW!", user="angry")
    assert answer["sentiment"] == "Angry"
    assert answer["metadata"]["escalated"] is True
    assert answer["metadata"]["outcome"] == "handoff"
    assert answer["metadata"]["escalation_reason"] is not None
    assert "CASE-" in answer["response"]
    with appliance.client("agent") as client:
        escalated = client.get("/conversations", params={"status": "escalated"}).json()["items"]
    assert answer["conversation_id"] in [item["id"] for item in escalated]


def test_a_password_is_reset_in_steps_with_their_source(appliance: ApplianceProcess) -> None:
    answer = appliance.ask(PASSWORD, user="password")
    assert answer["category"] == "Account"
    assert answer["metadata"]["outcome"] == "answered"
    assert answer["metadata"]["mode"] in ("quoted", "drafted", "curated")
    for step in ("Forgot password", "sign-in page", "60 minutes"):
        assert step in answer["response"]
    assert cited(answer) == ["21"]
    assert len(answer["metadata"]["kb_results"]) >= 3


def test_an_issue_is_no_threat(appliance: ApplianceProcess) -> None:
    answer = appliance.ask("I have an issue with my bill", user="issue")
    assert answer["category"] == "Billing"
    assert answer["metadata"]["escalated"] is False


@pytest.fixture(scope="module")
def answers(appliance: ApplianceProcess) -> list[dict[str, Any]]:
    """What each of the questions is answered, asked one after the other."""
    return [appliance.ask(question, user="model") for question in QUESTIONS]


def test_the_model_is_really_used(answers: list[dict[str, Any]]) -> None:
    written = [answer["metadata"] for answer in answers if answer["metadata"]["model"]]
    assert written
    for metadata in written:
        assert metadata["model"] == "smollm2-135m"
        assert metadata["tokens"]["generated"] > 0
    assert "drafted" in [metadata["mode"] for metadata in written]


def test_what_the_engine_evaluated_is_counted(
    appliance: ApplianceProcess, answers: list[dict[str, Any]]
) -> None:
    """Also when the draft is given up: prompt tokens are what costs on a CPU."""
    logged = {line["conversation"]: line["tokens"] for line in appliance.events("query_answered")}
    for answer in answers:
        assert answer["metadata"]["outcome"] == "answered"
        assert answer["metadata"]["tokens"]["prompt"] > 0, answer["metadata"]
        assert logged[answer["conversation_id"]] == answer["metadata"]["tokens"]


def test_the_same_question_gets_the_same_answer(
    appliance: ApplianceProcess, answers: list[dict[str, Any]]
) -> None:
    for question, answer in list(zip(QUESTIONS, answers, strict=True))[:2]:
        assert appliance.ask(question, user="same")["response"] == answer["response"]


def test_the_log_holds_ids_and_no_words_of_customers(appliance: ApplianceProcess) -> None:
    appliance.ask("My secret word is xylophone, how do I reset my password?", user="log")
    log = appliance.log.read_text()
    assert "query_answered" in log
    assert "xylophone" not in log
    assert "Forgot password" not in log
    for key in appliance.keys.values():
        assert key not in log


def test_a_conversation_goes_on(appliance: ApplianceProcess) -> None:
    first = appliance.ask("How does the free trial work?", user="goes-on")
    conversation = first["conversation_id"]
    second = appliance.ask("And then?", user="goes-on", conversation=conversation)
    third = appliance.ask("Thank you!", user="goes-on", conversation=conversation)
    assert {second["conversation_id"], third["conversation_id"]} == {conversation}
    assert third["metadata"]["outcome"] == "smalltalk"
    items = appliance.messages(conversation)
    assert [item["role"] for item in items] == ["customer", "assistant"] * 3
    assert [item["state"] for item in items] == ["answered", "sent"] * 3
    answers = [answer["response"] for answer in (first, second, third)]
    assert [item["content"] for item in items[1::2]] == answers


def test_asking_again_and_again_leads_to_a_person(appliance: ApplianceProcess) -> None:
    first = appliance.ask("Why are my files not syncing?", user="again")
    conversation = first["conversation_id"]
    outcomes = []
    for complaint in ("That did not help.", "Still not working."):
        answer = appliance.ask(complaint, user="again", conversation=conversation)
        outcomes.append(answer["metadata"]["escalation_reason"])
    assert outcomes == [None, "attempts"]


def test_a_stream_says_the_same_word_by_word(appliance: ApplianceProcess) -> None:
    body = {"user_id": "stream", "message": PASSWORD}
    with (
        appliance.client("customer") as client,
        client.stream("POST", "/query/stream", json=body) as response,
    ):
        assert response.status_code == 200
        events = list(read_events(response.iter_lines()))
    names = [name for name, _ in events]
    tokens = [data["text"] for name, data in events if name == "token"]
    assert names == ["analysis", "passages", *["token"] * len(tokens), "answer"]
    assert len(tokens) > 1
    assert "".join(tokens) == events[-1][1]["response"]
    assert events[-1][1]["response"] == appliance.ask(PASSWORD, user="stream-2")["response"]


def test_a_body_that_is_too_large_is_refused(appliance: ApplianceProcess) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(64):
            yield b" " * 16_384

    with appliance.client("customer") as client:
        for content in (b" " * 300_000, chunks()):
            try:
                answer = client.post("/query", content=content)
            except httpx.TransportError:
                continue  # it hung up on us before we had said everything, which is allowed
            assert answer.status_code == 413
            assert answer.json()["code"] == "too_large"
    assert appliance.readiness()[0] == 200


# --- the command line beside a running desk -------------------------------------------------------


def test_ask_goes_through_the_running_appliance(appliance: ApplianceProcess) -> None:
    answer = appliance.cli_json("ask", PASSWORD, "--user", "cli", "--stream")
    conversation = answer["conversation_id"]
    assert answer["category"] == "Account"
    assert len(appliance.messages(conversation)) == 2
    done = appliance.cli("ask", "Thank you!", "--user", "cli", "--conversation", conversation)
    assert done.returncode == 0
    assert "No appliance is running" not in done.stderr
    assert conversation in done.stderr
    assert len(appliance.messages(conversation)) == 4


def test_ask_prints_the_answer_and_its_sources(appliance: ApplianceProcess) -> None:
    plain = appliance.cli("ask", PASSWORD, "--user", "cli-2")
    streamed = appliance.cli("ask", PASSWORD, "--user", "cli-3", "--stream")
    assert plain.returncode == streamed.returncode == 0
    assert "Forgot password" in plain.stdout
    assert plain.stdout.endswith(f"  [21] {PASSWORD}\n")
    assert streamed.stdout == plain.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("ask", " "), "visible characters"),
        (("ask", "x" * 8_001), "8000"),
        (("ask", "x", "--user", ""), "user_id"),
        (("ask", "x", "--conversation", "none"), "conversation"),
        (("ask", "x", "--conversation", "none", "--stream"), "conversation"),
        (("kb", "search", " "), "empty"),
    ],
    ids=["blank", "long", "no user", "unknown", "unknown, streamed", "blank search"],
)
def test_refusals_are_one_line_and_a_hint(
    appliance: ApplianceProcess, arguments: tuple[str, ...], says: str
) -> None:
    done = appliance.cli(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    line, hint = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert hint.startswith("hint: ")
    assert len(hint) > len("hint: ")


def test_the_doctor_finds_it_well(appliance: ApplianceProcess) -> None:
    report = appliance.cli_json("doctor")
    assert report["well"] is True
    states = {finding["what"]: finding["state"] for finding in report["findings"]}
    assert states["engine"] == states["api"] == states["database"] == "ok"


def test_an_import_is_visible_to_the_next_query(appliance: ApplianceProcess) -> None:
    file = appliance.folder / "more.json"

    def bring(answer: str) -> None:
        article = {
            "id": "otters",
            "question": "How do I feed the office otters?",
            "answer": answer,
            "category": "General",
        }
        file.write_text(json.dumps({"faqs": [article]}))
        appliance.cli_json("kb", "import", str(file))

    question = "How do I feed the office otters?"
    try:
        assert "otters" not in cited(appliance.ask(question, user="otter-1"))
        bring("The office otters are fed with fresh trout at 09:00.")
        second = appliance.ask(question, user="otter-2")
        assert cited(second) == ["otters"]
        assert "trout" in second["response"]
        bring("The office otters are fed with clams at 10:00.")
        third = appliance.ask(question, user="otter-3")
        assert "clams" in third["response"]
        assert "trout" not in third["response"]
        assert appliance.cli_json("kb", "search", question)["items"][0]["id"] == "otters"
    finally:
        appliance.cli_json("kb", "import", str(FAQS), "--replace")
    assert "otters" not in cited(appliance.ask(question, user="otter-4"))


def test_a_key_revoked_is_refused_at_once(appliance: ApplianceProcess) -> None:
    made = appliance.cli_json("keys", "create", "--role", "agent")
    headers = {"Authorization": f"Bearer {made['key']}"}
    with appliance.client() as client:
        assert client.get("/stats", headers=headers).status_code == 200
        appliance.cli_json("keys", "revoke", made["id"])
        refused = client.get("/stats", headers=headers)
    assert refused.status_code == 401
    assert refused.json()["code"] == "unauthenticated"


def test_the_same_model_again_changes_nothing(appliance: ApplianceProcess) -> None:
    before = appliance.engine
    done = appliance.cli_json("models", "use", "smollm2-135m")
    assert done == {"model": "smollm2-135m", "running": True}
    assert appliance.engine == before
    missing = appliance.cli("models", "use", "llama-3.1-8b-instruct")
    assert missing.returncode == 1
    assert "appliance models add" in missing.stderr
    assert appliance.ask(PASSWORD, user="use")["metadata"]["outcome"] == "answered"


def test_a_second_start_in_the_same_folder_is_refused(appliance: ApplianceProcess) -> None:
    done = appliance.cli("up")
    assert (done.returncode, done.stdout) == (1, "")
    line, hint = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("error: ")
    assert "running already" in line
    assert str(appliance.data_dir) in line
    assert "APPLIANCE_DATA_DIR" in hint
    second_engine = appliance.cli("engine")
    assert second_engine.returncode == 1
    assert "running already" in second_engine.stderr
    assert appliance.readiness()[0] == 200
    assert appliance.ask(PASSWORD, user="second")["metadata"]["outcome"] == "answered"


# --- customers who leave --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/query", "/query/stream"])
def test_the_answer_is_kept_for_a_customer_who_leaves(
    appliance: ApplianceProcess, path: str
) -> None:
    user = f"leaver{path.replace('/', '-')}"
    body = json.dumps({"user_id": user, "message": PASSWORD}).encode()
    head = (
        f"POST /api/v1{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {appliance.keys['customer']}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", appliance.port)) as connection:
        connection.sendall(head.encode() + body)
        statement = "SELECT id FROM conversations WHERE user_id = ?"
        ((conversation,),) = until(lambda: appliance.rows(statement, user), "the message stored")
    until(lambda: len(appliance.messages(conversation)) == 2, "the answer stored")
    question, answer = appliance.messages(conversation)
    assert question["state"] == "answered"
    assert answer["outcome"] == "answered"
    assert "Forgot password" in answer["content"]


# --- what breaks and mends ------------------------------------------------------------------------


class ServiceManager:
    """Hears what processes tell systemd; it has to listen, or they would wait."""

    def __init__(self, path: Path) -> None:
        self.heard: list[tuple[int, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            message, extra, _, _ = self._socket.recvmsg(4_096, 256)
            if message == b"END":
                return
            ((_, _, credentials),) = extra
            self.heard.append((int.from_bytes(credentials[:4], sys.byteorder), message.decode()))

    def said(self, pid: int, message: str) -> bool:
        return (pid, message) in self.heard

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.connect(self._socket.getsockname())
            connection.send(b"END")
        self._thread.join()
        self._socket.close()


@pytest.fixture(scope="module")
def service_manager() -> Iterator[tuple[ServiceManager, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="notify-", dir="/tmp"))
    manager = ServiceManager(folder / "notify.sock")
    yield manager, folder / "notify.sock"
    manager.close()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def breakable(
    make_module_appliance: MakeAppliance, service_manager: tuple[ServiceManager, Path]
) -> ApplianceProcess:
    """A running appliance with a short queue for the tests below; each leaves it well."""
    settings = {"APPLIANCE_ENGINE_QUEUE": "2", "NOTIFY_SOCKET": str(service_manager[1])}
    return make_module_appliance(environment=settings)


def test_the_service_manager_is_told(
    breakable: ApplianceProcess, service_manager: tuple[ServiceManager, Path]
) -> None:
    """What the units' Type=notify and WatchdogSec wait for."""
    manager, _ = service_manager
    for pid in (breakable.api, breakable.keeper):
        until(lambda pid=pid: manager.said(pid, "READY=1"), f"READY=1 of {pid}")
        until(lambda pid=pid: manager.said(pid, "WATCHDOG=1"), f"WATCHDOG=1 of {pid}")
    assert not [message for _, message in manager.heard if message == "STOPPING=1"]


@contextmanager
def customers(desk: ApplianceProcess, user: str) -> Iterator[list[dict[str, Any]]]:
    """Two customers who ask all the time; every answer they got, and each has to be one."""
    stop = threading.Event()
    answers: list[dict[str, Any]] = []

    def ask(name: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            question = QUESTIONS[number % len(QUESTIONS)]
            answers.append(desk.ask(question, user=f"{name}-{number}"))

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask, f"{user}-{n}") for n in range(2)]
        try:
            yield answers
        finally:
            stop.set()
        for each in asking:
            each.result()
    assert answers
    assert {answer["metadata"]["outcome"] for answer in answers} == {"answered"}


def test_more_at_once_than_the_engine_takes_are_all_answered(
    breakable: ApplianceProcess,
) -> None:
    """Those the model has no place for get the articles' words."""
    desk = breakable

    def ask(number: int) -> dict[str, Any]:
        return desk.ask(QUESTIONS[number % len(QUESTIONS)], user=f"crowd-{number}")

    before = desk.log.stat().st_size
    with ThreadPoolExecutor(36) as pool:
        answers = list(pool.map(ask, range(36)))
    assert {answer["metadata"]["outcome"] for answer in answers} == {"answered"}
    assert all(cited(answer) for answer in answers)
    assert desk.events("answered_without_model", after=before)
    with desk.client() as client:
        assert client.get("/health").status_code == 200


def test_the_engine_dies_and_comes_back(breakable: ApplianceProcess) -> None:
    desk = breakable
    keeper, killed = desk.keeper, desk.engine
    with customers(desk, "engine"):
        # Its keeper may not start another one before we have seen the desk without any.
        desk.kill(keeper, signal.SIGSTOP)
        try:
            desk.kill(killed, signal.SIGKILL)
            seen = until(lambda: _engine_is(desk, "down"), "the engine seen down")
            assert seen["status"] == "ready"
            answer = desk.ask(PASSWORD, user="engine-down")
        finally:
            desk.kill(keeper, signal.SIGCONT)
        assert answer["metadata"]["mode"] == "curated"
        assert answer["metadata"]["tokens"]["generated"] == 0
        assert "Forgot password" in answer["response"]
        assert cited(answer) == ["21"]
        desk.wait_ready()
        assert desk.engine != killed
        assert desk.keeper == keeper
    assert _drafts_again(desk, "engine-up")


@pytest.mark.parametrize("count", [16])
def test_sixteen_streams_lose_their_engine_and_every_customer_gets_an_answer(
    breakable: ApplianceProcess, count: int
) -> None:
    desk = breakable
    api, killed = desk.api, desk.engine

    def ask(number: int) -> dict[str, Any]:
        question = f"{QUESTIONS[number % len(QUESTIONS)]} I am customer {number}."
        body = {"user_id": f"killed-{number}", "message": question}
        with (
            desk.client("customer") as client,
            client.stream("POST", "/query/stream", json=body) as answer,
        ):
            events = dict(read_events(answer.iter_lines()))
        answered: dict[str, Any] = events["answer"]
        return answered

    with ThreadPoolExecutor(count) as pool:
        under_way = [pool.submit(ask, number) for number in range(count)]
        until(
            lambda: engine_health(desk.sockets / "engine.sock").get("running", 0) >= 4,
            "the engine at work for several customers",
        )
        desk.kill(killed, signal.SIGKILL)
        answers = [future.result() for future in under_way]
    assert all(answer["response"] for answer in answers)
    outcomes = [answer["metadata"]["outcome"] for answer in answers]
    assert outcomes.count("answered") >= count * 0.8
    assert any(answer["metadata"]["mode"] == "curated" for answer in answers)
    desk.wait_ready()
    assert desk.api == api
    assert desk.engine != killed
    assert _drafts_again(desk, "after-sixteen")


def test_the_keeper_of_the_engine_dies_and_comes_back(breakable: ApplianceProcess) -> None:
    desk = breakable
    keeper, engine = desk.keeper, desk.engine
    with customers(desk, "keeper"):
        desk.kill(keeper, signal.SIGKILL)
        until(lambda: keeper not in desk.processes(), "the keeper gone")
        until(lambda: engine not in desk.processes(), "its engine gone with it")
        until(lambda: desk.processes("-m appliance engine"), "another keeper")
        desk.wait_ready()
    assert desk.keeper != keeper
    assert desk.engine != engine
    assert _drafts_again(desk, "keeper-up")


def _engine_is(desk: ApplianceProcess, state: str) -> dict[str, Any] | None:
    status, body = desk.readiness()
    return body if status == 200 and body["engine"] == state else None


def _drafts_again(desk: ApplianceProcess, user: str) -> bool:
    """Whether the model writes; what ``/ready`` says is up to a second old."""
    answer = until(
        lambda: next(
            (
                a
                for n, question in enumerate(QUESTIONS)
                if (a := desk.ask(question, user=f"{user}-{n}"))["metadata"]["model"]
            ),
            None,
        ),
        "an answer by the model",
    )
    return bool(answer["metadata"]["tokens"]["generated"])


def test_the_api_dies_in_the_middle_and_nothing_is_lost(breakable: ApplianceProcess) -> None:
    desk = breakable
    killed = desk.api
    received: list[dict[str, Any]] = []

    def ask(index: int) -> None:
        """Until nobody answers any more."""
        number = 0
        with desk.client("customer") as client:
            while True:
                number += 1
                question = QUESTIONS[(index + number) % len(QUESTIONS)]
                body = {"user_id": f"api-{index}-{number}", "message": question}
                try:
                    answer = client.post("/query", json=body)
                except httpx.TransportError:
                    return
                assert answer.status_code == 200, answer.text
                received.append(answer.json())

    waiting = "SELECT count(*) FROM messages WHERE state = 'received'"
    with ThreadPoolExecutor(12) as pool:
        asking = [pool.submit(ask, index) for index in range(12)]
        until(lambda: received and desk.rows(waiting)[0][0] >= 4, "messages under way")
        desk.kill(killed, signal.SIGKILL)
        for each in asking:
            each.result()
    desk.wait_ready()
    assert desk.api != killed

    assert desk.rows("PRAGMA integrity_check") == [("ok",)]
    assert desk.rows("PRAGMA foreign_key_check") == []
    mine = desk.rows("SELECT id, user_id FROM conversations WHERE user_id LIKE 'api-%'")
    stored: dict[str, str] = {}
    interrupted = []
    for conversation, user in mine:
        question, *replies = desk.messages(conversation)
        if question["state"] == "interrupted":
            assert replies == []
            interrupted.append((conversation, user, question["content"]))
        else:
            assert question["state"] == "answered"
            assert [reply["role"] for reply in replies] == ["assistant"]
            stored[replies[0]["id"]] = replies[0]["content"]
    assert interrupted
    for answer in received:
        assert stored[answer["message_id"]] == answer["response"]

    conversation, user, text = interrupted[0]
    again = desk.ask(text, user=user, conversation=conversation)
    assert again["metadata"]["outcome"] == "answered"


def test_a_model_that_cannot_be_loaded_leaves_the_old_one(
    breakable: ApplianceProcess, prepared_home: Path
) -> None:
    """Weights of another model under a wrong name, then a file of nonsense."""
    desk = breakable
    before = desk.engine
    (genuine,) = (prepared_home / "weights").glob("SmolLM2*.gguf")
    nonsense = desk.folder / "nonsense.gguf"
    nonsense.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(4_096))
    with customers(desk, "switch"):
        for file in (genuine, nonsense):
            desk.cli_json("models", "add", str(file), "--name", "llama-3.2-1b-instruct")
            done = desk.cli("models", "use", "llama-3.2-1b-instruct")
            assert done.returncode == 1, done.stdout
            line, hint = done.stderr.splitlines()[-2:]
            assert line.startswith("error: llama-3.2-1b-instruct could not be started: ")
            assert hint == "hint: The model that was served before still serves."
        assert desk.engine == before
    assert desk.wait_ready()["model"] == "smollm2-135m"
    assert len(desk.processes_with("appliance.llm.engine")) == 1
    assert desk.cli_json("models", "list")["active"] == "smollm2-135m"


def test_a_second_api_in_the_same_folder_is_refused(breakable: ApplianceProcess) -> None:
    """It would take the operator's socket away and call the first one's messages interrupted."""
    desk = breakable
    log = desk.folder / "second-api"
    with log.open("wb") as file:
        second = subprocess.Popen(
            [*COMMAND, "api"],
            env=desk.environment | {"APPLIANCE_PORT": "0"},
            cwd=desk.folder,
            stdout=file,
            stderr=file,
        )
    try:
        until(lambda: second.poll() is not None or b"listening" in log.read_bytes(), "its end")
        assert second.poll() == 1, log.read_text()
    finally:
        second.terminate()
        second.wait(60)
    assert "running already" in log.read_text()
    assert desk.cli_json("doctor")["well"] is True


def test_everything_ends_when_up_is_killed_and_the_next_start_is_a_short_one(
    breakable: ApplianceProcess,
) -> None:
    desk = breakable
    answer = desk.ask(PASSWORD, user="before")
    weights = _weights(desk)
    assert desk.send_stop(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: processes_of(desk.data_dir) == {}, "every child gone")
    after = desk.log.stat().st_size
    desk.start()
    assert _weights(desk) == weights
    assert desk.events("type measured", after=after) == []
    assert desk.events("index_built", after=after) == []
    assert re.search(rf"^Ready after [\d.]+ s: {desk.url}/$", desk.out.read_text(), re.MULTILINE)
    assert len(desk.messages(answer["conversation_id"])) == 2
    assert desk.ask(PASSWORD, user="after")["response"] == answer["response"]


def _weights(desk: ApplianceProcess) -> dict[str, tuple[int, int]]:
    files = (desk.data_dir / "weights").glob("*.gguf")
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def test_ctrl_c_ends_everything_but_not_before_the_answers_under_way(
    breakable: ApplianceProcess, service_manager: tuple[ServiceManager, Path]
) -> None:
    desk = breakable
    ending = [desk.api, desk.keeper]
    waiting = "SELECT count(*) FROM messages WHERE state = 'received'"
    with ThreadPoolExecutor(4) as pool:
        asking = [
            pool.submit(desk.ask, question, user=f"last-{n}")
            for n, question in enumerate(QUESTIONS[:4])
        ]
        until(lambda: desk.rows(waiting)[0][0] > 0 or all(a.done() for a in asking), "a message")
        desk.stop()
        answered = [each for each in asking if each.exception() is None]
    assert answered
    assert desk.rows(waiting) == [(0,)]
    assert all(service_manager[0].said(pid, "STOPPING=1") for pid in ending)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", desk.port), timeout=5).close()


def test_a_port_that_is_taken_is_named(make_appliance: MakeAppliance) -> None:
    desk = make_appliance(fill=False, start=False)
    desk.cli_json("db", "upgrade")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        desk.port = taken.getsockname()[1]
        desk.start(wait=False)
        assert desk.process is not None
        status = desk.process.wait(180)
        desk.process = None
    assert status == 1
    said = [line for line in desk.log.read_text().splitlines() if not line.startswith("{")]
    assert f"error: 127.0.0.1 port {desk.port} cannot be used: Address already in use." in said
    assert any("APPLIANCE_PORT" in line for line in said if line.startswith("hint: "))
    assert [line for line in said if "Traceback" in line] == []
    assert said[-2].startswith("error: ")
    assert said[-1].startswith("hint: ")
    assert processes_of(desk.data_dir) == {}

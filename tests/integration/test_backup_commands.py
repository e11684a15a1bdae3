"""``appliance db backup``, ``verify``, ``backups`` and ``restore`` as an administrator types them:
a desk that serves is moved to another machine."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.cli.main import cli
from appliance.operations.backup import contents
from tests.appliance_process import (
    COMMAND,
    FAQS,
    ROOT,
    ApplianceProcess,
    free_port,
    link_graph,
    until,
)

pytestmark = pytest.mark.loopback

QUESTION = "How do I reset my password?"
DOCUMENT = (ROOT / "docs" / "backup.md").read_text(encoding="utf-8")


def only_error(done: object) -> tuple[str, str]:
    """The line and the hint of a command that failed."""
    assert done.returncode == 1, done  # type: ignore[attr-defined]
    lines = done.stderr.splitlines()[-2:]  # type: ignore[attr-defined]
    assert [line.split(":")[0] for line in lines] == ["error", "hint"], done
    return lines[0], lines[1]


class ArticleDesk(ApplianceProcess):
    """Its API alone: without a model the articles answer, which is what a restore is about."""

    def serve(self) -> None:
        self.port = free_port()
        self.environment["APPLIANCE_PORT"] = str(self.port)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "api"], env=self.environment, cwd=self.folder, stderr=log
            )
        until(lambda: self.readiness()[0] == 200, "an API that is ready")


@pytest.fixture
def servers(prepared_home: Path) -> Iterator[tuple[ArticleDesk, ArticleDesk]]:
    """A desk that serves, and a machine with nothing on it."""
    old, new = ArticleDesk(prepared_home), ArticleDesk(None)
    try:
        old.fill()
        old.serve()
        yield old, new
    finally:
        old.clean()
        new.clean()


def test_a_desk_moves_to_a_new_server(
    servers: tuple[ArticleDesk, ArticleDesk], tmp_path: Path
) -> None:
    old, new = servers
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse battery staple\n")
    sealed = ("--passphrase-file", str(passphrase))

    answer = old.ask(QUESTION)
    conversation = answer["conversation_id"]
    with old.client("admin") as admin:
        assert admin.put("/users/vip-1", json={"vip": True}).status_code == 200
    made = old.cli_json("db", "backup", "--with-secrets", *sealed)
    backup = made["file"]
    assert made["manifest"]["left_out"] == []
    # Of everything that a desk in use has in its folder something was decided.
    assert list(contents.files(old.data_dir, None)) == []
    assert Path(backup).stat().st_mode & 0o777 == 0o600
    later = old.ask(QUESTION, user="later")

    verified = old.cli_json("db", "verify", backup, *sealed)
    assert verified["sound"]
    assert verified["answer_records"] == 1
    listed = old.cli_json("db", "backups")
    assert listed["backups"][0]["rehearsed"]["sound"]
    assert listed["standing"]["last"]["file"] == backup
    assert "is running" in only_error(old.cli("db", "restore", backup, "--replace", "--yes"))[0]

    restored = new.cli_json("db", "restore", backup, *sealed)
    assert restored["findings"] == []
    assert restored["tables"]["conversations"] == 1
    assert not any("signed with" in each["what"] for each in restored["advice"])
    # The note of the one and of the other.
    acts = [e["action"] for e in old.cli_json("audit", "list")["items"]]
    assert {"db.backup", "db.verify"} <= set(acts)
    assert new.cli_json("audit", "list")["items"][0]["action"] == "db.restore"
    assert new.cli_json("answers", "verify")["sound"]

    assert old.send_stop(signal.SIGTERM) == 0
    new.keys = old.keys
    link_graph(old.data_dir, new.data_dir)
    new.serve()
    said = [message["content"] for message in new.messages(conversation)]
    assert said == [QUESTION, answer["response"]]
    again = new.ask(QUESTION)
    assert again["response"] == answer["response"]
    assert again["metadata"]["citations"] == answer["metadata"]["citations"]
    with new.client("admin") as admin:
        assert admin.get("/users/vip-1").json()["vip"] is True
        assert admin.get(f"/conversations/{later['conversation_id']}").status_code == 404


@pytest.fixture
def desk() -> Iterator[ApplianceProcess]:
    """A desk that does not run."""
    desk = ApplianceProcess(None)
    desk.cli_json("db", "upgrade")
    desk.cli_json("kb", "import", str(FAQS))
    yield desk
    desk.clean()


def test_the_clock_keeps_days_and_rehearses_each_week(desk: ApplianceProcess) -> None:
    first = desk.cli_json("db", "backup", "--scheduled")
    assert first["rehearsal"]["sound"]
    second = desk.cli_json("db", "backup", "--scheduled")
    assert second["rehearsal"] is None
    # The day's last one is kept; the first goes unless it is the one known to be sound.
    assert second["removed"] == []
    third = desk.cli_json("db", "backup", "--scheduled")
    assert third["removed"] == [second["file"]]
    listed = desk.cli("db", "backups")
    assert listed.returncode == 0
    assert listed.stdout.count("the clock") == 2


def test_what_is_wrong_is_told_in_a_line_and_a_hint(desk: ApplianceProcess, tmp_path: Path) -> None:
    assert "There is no backup" in only_error(desk.cli("db", "verify"))[0]
    made = Path(desk.cli_json("db", "backup", "--out", str(tmp_path / "one.tar"))["file"])
    assert "exists already" in only_error(desk.cli("db", "backup", "--out", str(made)))[0]
    broken = tmp_path / "broken.tar"
    broken.write_bytes(made.read_bytes()[:-2_000])
    done = desk.cli("db", "verify", str(broken), "--json")
    assert done.returncode == 1
    assert not json.loads(done.stdout)["sound"]
    assert "damaged" in only_error(desk.cli("db", "restore", str(broken), "--replace", "--yes"))[0]
    for words in (
        ("backup", "--with-secrets"),
        ("backup", "--passphrase-file", str(made)),
        ("backup", "--scheduled", "--keep", "3"),
        ("restore", "/nowhere.tar"),
    ):
        assert desk.cli("db", *words).returncode == 2
    # Nobody is there to answer.
    assert desk.cli("db", "restore", str(made), "--replace").returncode == 130


def test_an_interrupted_restore_is_undone_before_a_new_database_could_hide_it(
    desk: ApplianceProcess,
) -> None:
    database, journal = desk.data_dir / "appliance.db", desk.data_dir / "restore.json"
    aside = desk.data_dir / "before-restore-x" / "appliance.db"
    before = len(desk.rows("SELECT * FROM knowledge_entries"))
    aside.parent.mkdir()
    moves = [(database, aside), (desk.data_dir / ".restore-x" / "0000.member", database)]
    journal.write_text(
        json.dumps({"moves": [{"source": str(a), "target": str(b)} for a, b in moves]})
    )
    database.rename(aside)
    assert desk.cli("db", "upgrade").returncode == 0
    assert len(desk.rows("SELECT * FROM knowledge_entries")) == before > 0
    assert not journal.exists()


def test_the_document_names_commands_that_exist() -> None:
    lines = re.findall(r"^    (?:sudo -u appliance )?(appliance .+?)(?:\s+#.*)?$", DOCUMENT, re.M)
    assert len(lines) > 5
    for line in lines:
        _, *words = shlex.split(line)
        with cli.make_context("appliance", list(words), resilient_parsing=True) as context:
            name, group, rest = cli.resolve_command(context, words)
            assert group is not None
            with group.make_context(name, list(rest), resilient_parsing=True) as inner:
                _, found, options = group.resolve_command(inner, rest)  # type: ignore[attr-defined]
                known = {word for parameter in found.params for word in parameter.opts}
                assert {word for word in options if word.startswith("--")} <= known, line

"""The doctor's page and the support archive: by what they say of a desk that was broken on
purpose, and by what they do not say."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from appliance.cli.main import cli
from appliance.operations.backup.contents import STATE_FILE
from appliance.operations.doctor import archive, backups, clock, logbook, machine, model
from appliance.operations.doctor.model import _speed
from appliance.settings import load_settings
from tests.appliance_process import FAQS, ROOT, ApplianceProcess

pytestmark = pytest.mark.loopback


@pytest.fixture
def desk() -> Iterator[ApplianceProcess]:
    made = ApplianceProcess(None)
    try:
        made.cli_json("db", "upgrade")
        made.cli_json("kb", "import", str(FAQS))
        yield made
    finally:
        made.clean()


def findings(desk: ApplianceProcess, **environment: str) -> dict[str, list[dict[str, str]]]:
    desk.environment |= environment
    found: dict[str, list[dict[str, str]]] = {}
    for finding in json.loads(desk.cli("doctor", "--json").stdout)["findings"]:
        found.setdefault(finding["what"], []).append(finding)
    return found


def test_the_page_fits_a_terminal(desk: ApplianceProcess) -> None:
    lines = desk.cli("doctor").stdout.splitlines()
    assert lines[0] == "What leaves"
    assert lines[1].startswith("  ok    remote: off")
    # A path may be longer than any line.
    assert all(len(line) <= 80 or " " not in line.strip() for line in lines)
    assert "findings." in lines[-1]


def test_a_configuration_that_is_not_valid_is_a_finding(desk: ApplianceProcess) -> None:
    found = findings(desk, APPLIANCE_PORT="eighty")
    assert found["configuration"][0]["state"] == "bad"
    assert "port" in found["configuration"][0]["detail"]
    assert found["memory"]
    assert found["version"]


def test_a_database_that_is_none_is_a_finding(desk: ApplianceProcess) -> None:
    (desk.data_dir / "appliance.db").write_bytes(b"not a database" * 1000)
    for end in ("-wal", "-shm"):
        (desk.data_dir / f"appliance.db{end}").unlink(missing_ok=True)
    found = findings(desk)
    assert found["database"][0]["state"] == "bad"
    assert found["disk"][0]["state"] in ("ok", "warn")
    assert found["model"][0]["state"] == "ok"


def test_what_cannot_be_looked_at_is_a_finding_whatever_fails(desk: ApplianceProcess) -> None:
    with closing(sqlite3.connect(desk.data_dir / "appliance.db")) as database, database:
        database.execute("UPDATE knowledge_entries SET created_at = 'when?', updated_at = 'when?'")
        database.execute(
            "INSERT INTO audit_log (id, created_at, actor, action, target, details) VALUES"
            " ('a', 'yesterday', 'appliance', 'account.lock', 'ann', '{}')"
        )
    found = findings(desk)
    assert found["database"][0]["state"] == "bad"
    assert "ValueError" in found["database"][0]["detail"]
    assert found["model"][0]["state"] == "ok"


def test_a_damaged_measurement_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(data_dir=tmp_path, runtime_dir=tmp_path / "run")
    (tmp_path / "weights").mkdir()
    damaged = {"single": 1, "batch": 1, "measured": [{"threads": 1, "one_token": 0, "read": 0}]}
    (tmp_path / "weights" / "m.tuning.json").write_text(json.dumps(damaged))
    seen = {"status": "ok", "model": "m", "sha256": "0"}
    monkeypatch.setattr(model, "health", lambda _socket: seen)
    found = {finding.what: finding for finding in model.engine(settings)}
    assert found["engine"].state == "ok"
    assert (found["speed"].state, "ZeroDivisionError" in found["speed"].detail) == ("bad", True)


def test_no_hint_ends_in_a_usage_error() -> None:
    """Every command named in a hint or in docs/operations.md is one, with what it needs."""
    sources = [*(ROOT / "appliance/operations/doctor").glob("*.py"), ROOT / "docs/operations.md"]
    named = {
        tuple(words.split())
        for source in sources
        for words in re.findall(r"['`]appliance ([a-z][^'`]*)['`]", source.read_text())
    }
    assert len(named) > 10
    for words in sorted(named):
        command: click.Command = cli
        given = list(words)
        while isinstance(command, click.Group):
            assert given, f"appliance {' '.join(words)} needs a subcommand"
            command = command.commands[given.pop(0)]
        needed = [p.name for p in command.params if isinstance(p, click.Argument) and p.required]
        assert len([word for word in given if word[0] != "-"]) >= len(needed), words


def test_a_clock_that_was_set_back_shows() -> None:
    now = datetime.now(UTC)
    assert clock.examine(now + timedelta(hours=3))[0].state == "bad"
    assert "behind" in clock.examine(now + timedelta(hours=3))[0].detail
    assert clock.examine(now - timedelta(hours=3))[0].state != "bad"
    assert clock.examine(None)[0].state != "bad"


def test_weights_that_changed_show(desk: ApplianceProcess) -> None:
    assert "verified" in findings(desk)["model"][0]["detail"]
    folder = desk.data_dir / "weights"
    folder.mkdir(exist_ok=True)
    (folder / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF")
    found = findings(desk)["model"][0]
    assert found["state"] == "bad"
    assert "has changed" in found["detail"]


def test_dead_letters_locks_and_a_broken_chain_show(desk: ApplianceProcess) -> None:
    now = datetime.now(UTC).isoformat()
    with closing(sqlite3.connect(desk.data_dir / "appliance.db")) as database, database:
        example = database.execute("SELECT updated_at FROM knowledge_entries").fetchone()[0]
        stamp = example if isinstance(example, str) else now
        database.execute(
            "INSERT INTO webhooks (id, url, events, secret, active, disabled_reason, disabled_at,"
            " created_at, updated_at) VALUES ('w', 'http://10.0.0.1/', '[]', 's', 0, 'failing',"
            " ?, ?, ?)",
            (stamp,) * 3,
        )
        for number, state in enumerate(("dead", "pending")):
            database.execute(
                "INSERT INTO webhook_deliveries (id, webhook_id, event_id, event_type, body,"
                " state, attempts, failures, created_at, finished_at) VALUES"
                " (?, 'w', 'e', 't', '{}', ?, 0, 0, ?, ?)",
                (str(number), state, stamp, stamp if state == "dead" else None),
            )
        database.execute(
            "INSERT INTO audit_log (id, created_at, actor, action, target, details) VALUES"
            " ('a', ?, 'appliance', 'account.lock', 'ann', '{}')",
            (stamp,),
        )
    found = findings(desk)
    states = [f["state"] for f in found["deliveries"]]
    assert states == ["warn", "warn"]
    assert "1 dead letters" in found["deliveries"][0]["detail"]
    assert "1 of 1 webhooks switched off" in found["deliveries"][1]["detail"]
    assert found["sign-ins"][0]["state"] == "warn"
    assert found["records"][0]["state"] == "ok"


def test_backups_are_judged_by_what_they_noted(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)

    def note(**parts: Any) -> tuple[str, str]:
        (tmp_path / STATE_FILE).write_text(json.dumps(parts))
        (found,) = backups.examine(settings)
        return found.state, found.detail

    now = datetime.now(UTC)
    file = tmp_path / "b.tar"
    file.touch()
    last = {"id": "1", "file": str(file), "at": now.isoformat(), "size": 2**20}
    last |= {"seconds": 1.0, "scheduled": True}
    rehearsed = {"id": "1", "file": "b.tar", "at": now.isoformat(), "sound": True, "findings": []}
    rehearsed |= {"seconds": 1.0}
    assert backups.examine(settings)[0].state == "warn"
    assert note(last=last)[0] == "warn"
    assert note(last=last, rehearsals=[rehearsed])[0] == "ok"
    unsound = rehearsed | {"sound": False, "findings": ["counts differ"]}
    assert note(last=last, rehearsals=[unsound]) == (
        "bad",
        f"{file} of {now:%Y-%m-%d %H:%M} UTC, 1 MiB; its rehearsal failed: counts differ",
    )
    other = rehearsed | {"id": "0", "file": "a.tar"}
    assert note(last=last, rehearsals=[unsound, other])[0] == "bad", "another backup's is not its"
    state, detail = note(last=last, rehearsals=[other])
    assert (state, "the rehearsal of a.tar" in detail) == ("ok", True)
    assert note(last=last, rehearsals=[rehearsed, other | {"sound": False}])[0] == "ok"
    file.unlink()
    assert note(last=last, rehearsals=[rehearsed])[0] == "bad"
    file.touch()
    old = last | {"at": (now - timedelta(days=5)).isoformat()}
    assert "5 days old" in note(last=old, rehearsals=[rehearsed])[1]
    assert note(last=last, failed={"at": now.isoformat(), "detail": "full"})[0] == "bad"
    (tmp_path / STATE_FILE).write_text("{")
    assert backups.examine(settings)[0].state == "warn"


def test_a_key_outside_of_the_data_folder_that_everybody_can_read_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:  # pytest's own folders are closed
        outside, data = Path(made), Path(made) / "data"
        outside.chmod(0o755)
        data.mkdir(mode=0o700)
        key = outside / "tls.key"
        key.write_text("key")
        settings = load_settings(data_dir=data, runtime_dir=outside / "run", tls_key_file=key)

        def state(mode: int) -> str:
            key.chmod(mode)
            (found,) = machine.folders(settings)
            assert found.state == "ok" or (str(key) in found.detail and str(key) in found.hint)
            return found.state

        assert state(0o640) == "ok"
        assert state(0o644) == "bad"
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(outside))
        assert state(0o644) == "ok", "the mask of an access list"
        monkeypatch.delenv("CREDENTIALS_DIRECTORY")
        outside.chmod(0o700)
        assert state(0o644) == "ok", "below a closed folder"


def test_an_engine_that_got_slower_shows() -> None:
    tuned = {
        "single": 1,
        "batch": 2,
        "measured": [
            {"threads": 1, "one_token": 0.01, "read": 0.5},
            {"threads": 2, "one_token": 0.02, "read": 0.5},
        ],
    }
    assert _speed(tuned, {"reading": 300.0, "writing": 90.0})[0].state == "ok"
    assert _speed(tuned, {"reading": 300.0, "writing": 20.0})[0].state == "warn"
    assert _speed(tuned, {"reading": 0.0, "writing": 0.0})[0].state == "ok"
    assert _speed({}, {"reading": 1.0}) == []


# --- the archive ----------------------------------------------------------------------------------

PLANTED = (
    "hunter2-planted",
    "Petra Musterfrau",
    "my router is on fire",
    "petra@example.org",
    "203.0.113.77",
    "gsk_plantedplantedplantedplanted0000",
    "user-4711",
)


def test_the_archive_holds_nothing_that_anybody_wrote(desk: ApplianceProcess) -> None:
    password, name, message, mail, address, key, user = PLANTED
    (desk.data_dir / "run").mkdir()
    lines = [
        {"event": "query_answered", "level": "info", "timestamp": "t", "user": user, "seconds": 1},
        {"event": "failed", "level": "error", "timestamp": "t", "detail": f"{message} {mail}"},
        {"event": "login", "level": "info", "timestamp": "t", "client": address, "name": name},
        {
            "event": f"bad {message} {user}",
            "level": "error",
            "timestamp": "t",
            "logger": "litestar",
        },
        {"event": "x", "level": "info", "timestamp": "t", "status": f"{key} from {address}"},
        {
            "event": "unforeseen",
            "level": "error",
            "timestamp": "t",
            "exception": [
                {
                    "exc_type": "ValueError",
                    "exc_value": message,
                    "frames": [{"filename": "a.py", "lineno": 3}],
                }
            ],
        },
    ]
    text = "\n".join([*map(json.dumps, lines), f"Traceback: {message} {name}"])
    (desk.data_dir / "run" / "appliance.log").write_text(text)
    with closing(sqlite3.connect(desk.data_dir / "appliance.db")) as database, database:
        stamp = database.execute("SELECT updated_at FROM knowledge_entries").fetchone()[0]
        database.execute(
            "INSERT INTO users (id, name, email, vip, created_at, updated_at) VALUES (?,?,?,0,?,?)",
            (user, name, mail, stamp, stamp),
        )
    desk.environment |= {
        "APPLIANCE_QUEUE_URL": f"redis://desk:{password}@127.0.0.1/0",
        "APPLIANCE_WEBHOOK_ALLOW": address,
    }
    file = desk.folder / "support.tar.gz"
    made = json.loads(desk.cli("doctor", "--archive", str(file), "--json").stdout)
    assert os.stat(file).st_mode & 0o777 == 0o600
    with tarfile.open(file) as opened:
        contents = {
            member.name: opened.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in opened.getmembers()
        }
    assert {f"support/{member['name']}" for member in made["members"]} == set(contents)
    for planted in PLANTED:
        for name, content in contents.items():
            assert planted not in content, name
    log = json.loads(contents["support/log.json"])
    assert log[0] == {"event": "query_answered", "level": "info", "timestamp": "t", "seconds": 1}
    assert (log[3]["event"], log[3]["logger"]) == ("[a line of 34 characters]", "litestar")
    assert log[5]["exception"] == [{"type": "ValueError", "frames": ["a.py:3"]}]
    assert json.loads(contents["support/counts.json"])["users"] == 1
    assert json.loads(contents["support/doctor.json"])
    again = desk.cli("doctor", "--archive", str(file))
    assert again.returncode == 1
    assert "hint:" in again.stderr


@pytest.mark.parametrize("logger", [{}, {"logger": "huey"}])
def test_sentences_do_not_leave(logger: dict[str, str]) -> None:
    """Those without a name as well: lines that a release before this one wrote."""
    line = {"event": "Unhandled: petra", "level": "error", "timestamp": "t", **logger}
    assert archive.log_line(line) == line | {"event": "[a line of 16 characters]"}


def test_errors_of_libraries_are_counted_without_their_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = [
        {"event": f"bad {PLANTED[2]}", "level": "error", "timestamp": "t", "logger": "litestar"},
        {"event": "agent_failed", "level": "error", "timestamp": "t"},
        {"event": "agent_failed", "level": "error", "timestamp": "t"},
    ]
    monkeypatch.setattr(logbook, "journal", lambda *_: iter(lines))
    (found,) = logbook.examine()
    assert found.detail == "3 errors in the last hour: agent_failed 2, litestar 1"


def test_addresses_of_this_machine_stay() -> None:
    told = {"a": ["10.1.2.3:80 and 127.0.0.1", "2001:db8::7", "12:30:00"], "n": 3}
    assert archive.cleaned(told) == {
        "a": ["[address]:80 and 127.0.0.1", "[address]", "12:30:00"],
        "n": 3,
    }

"""The ``appliance`` command as people and scripts call it: real processes, a data folder of one's
own, no appliance running."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import cli
from appliance.errors import KnowledgeFileError
from appliance.knowledge.importers import read_faqs
from tests.appliance_process import (
    COMMAND,
    FAQS,
    ApplianceProcess,
    clean_environment,
    give_prepared,
)

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def desk() -> Iterator[ApplianceProcess]:
    """A data folder that does not exist yet."""
    desk = ApplianceProcess(None)
    yield desk
    desk.clean()


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    """The data folder that ``db upgrade`` makes."""
    made = ApplianceProcess(None)
    made.cli_json("db", "upgrade")
    yield made.data_dir
    made.clean()


@pytest.fixture
def migrated(desk: ApplianceProcess, template: Path) -> ApplianceProcess:
    """A data folder with an empty database."""
    shutil.copytree(template, desk.data_dir)
    return desk


def assert_failed(done: Done, *, says: str = "", hint: str = "") -> None:
    """Status 1, nothing on stdout, and on stderr at last one line and a hint."""
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr, done.stderr[-2_000:]
    line, told = done.stderr.splitlines()[-2:]
    assert line.startswith("error: ")
    assert told.startswith("hint: ")
    assert says in line
    assert hint in told


def assert_usage(done: Done) -> None:
    """Status 2, nothing on stdout, and the usage on stderr."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert done.stderr.startswith("Usage: ")
    assert "Traceback" not in done.stderr


def faqs(folder: Path, *entries: Any, name: str = "faqs.json") -> str:
    """A knowledge file with these entries."""
    file = folder / name
    file.write_text(json.dumps({"faqs": list(entries)}), encoding="utf-8")
    return str(file)


def entry(identifier: Any = "1", **changes: Any) -> dict[str, Any]:
    """A good article, but for the changes."""
    good = {"id": identifier, "question": "Q?", "answer": "An answer.", "category": "General"}
    return good | changes


# --- help and usage -------------------------------------------------------------------------------


def commands(group: Any = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command and group, the product's own list of them."""
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


def test_the_commands_of_the_contract_are_there() -> None:
    """Those that exist so far; a command may be added, none may disappear."""
    wanted = {
        *[("api",), ("ask",), ("doctor",), ("engine",), ("eval",), ("up",), ("db", "upgrade")],
        *[("kb", name) for name in ("import", "list", "search")],
        *[("keys", name) for name in ("create", "list", "revoke")],
        *[("models", name) for name in ("add", "list", "show", "use", "verify")],
    }
    assert wanted <= set(commands())


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...], desk: ApplianceProcess) -> None:
    done = desk.cli(*words, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {' '.join(('appliance', *words))}")
    # A sentence for people and an explanation of every option.
    assert len(done.stdout.splitlines()[2].split()) >= 2
    assert not re.search(r"^  -[-\w, ]+(?: [A-Z]+)?$(?!\n {10})", done.stdout, re.MULTILINE)
    assert not desk.data_dir.exists()


def test_help_loads_nothing_heavy(desk: ApplianceProcess) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "appliance", "--help"],
        env=desk.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    loaded = set(re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "click" in loaded
    heavy = {"torch", "litestar", "pydantic", "sqlalchemy", "numpy", "httpx", "langgraph", "faiss"}
    assert loaded & heavy == set()


def test_the_version(desk: ApplianceProcess) -> None:
    done = desk.cli("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"appliance, version \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nonsense",),
        ("kb",),
        ("kb", "import"),
        ("kb", "import", "/nowhere/faqs.json"),
        ("kb", "import", "/"),
        ("kb", "search", "x", "--limit", "0"),
        ("kb", "search", "x", "--category", "Sales"),
        ("keys", "create"),
        ("keys", "create", "--role", "root"),
        ("keys", "create", "--role", "admin", "--days", "0"),
        ("models", "show"),
        ("models", "add", "/nowhere/model.gguf"),
        ("ask",),
        ("eval", "--set", "/nowhere/golden.jsonl"),
        ("db", "upgrade", "now"),
        ("up", "--nonsense"),
    ],
    ids=lambda words: " ".join(words) or "nothing",
)
def test_wrong_usage(words: tuple[str, ...], desk: ApplianceProcess) -> None:
    assert_usage(desk.cli(*words))
    assert not desk.data_dir.exists()


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("APPLIANCE_PORT", "many", "port"),
        ("APPLIANCE_LOG_LEVEL", "loud", "log_level"),
        ("APPLIANCE_ENGINE_TIMEOUT", "0", "engine_timeout"),
        ("APPLIANCE_DATABASE_URL", "mysql://db/desk", ""),
        ("APPLIANCE_CONFIG", "/nowhere/appliance.toml", "/nowhere/appliance.toml"),
        ("APPLIANCE_RUNTIME_DIR", "/tmp/" + "x" * 90, "too long"),
    ],
)
def test_wrong_settings_are_named(name: str, value: str, says: str, desk: ApplianceProcess) -> None:
    desk.environment[name] = value
    try:
        assert_failed(desk.cli("db", "upgrade"), says=says)
    finally:
        if name == "APPLIANCE_RUNTIME_DIR":
            shutil.rmtree(value, ignore_errors=True)


@pytest.mark.parametrize(
    ("content", "says"),
    [("port = ", "not valid TOML"), ("prot = 8080", "prot"), ('port = "x"', "port"), ("\xff", "")],
)
def test_a_wrong_configuration_file_is_named(
    content: str, says: str, desk: ApplianceProcess
) -> None:
    file = desk.folder / "appliance.toml"
    file.write_bytes(content.encode("latin-1"))
    desk.environment["APPLIANCE_CONFIG"] = str(file)
    assert_failed(desk.cli("db", "upgrade"), says=says)


def test_the_environment_wins_over_the_file(desk: ApplianceProcess) -> None:
    file = desk.folder / "appliance.toml"
    file.write_text(f'data_dir = "{desk.folder / "from-file"}"\n')
    desk.environment["APPLIANCE_CONFIG"] = str(file)
    desk.cli_json("db", "upgrade")
    assert (desk.data_dir / "appliance.db").exists()
    del desk.environment["APPLIANCE_DATA_DIR"]
    desk.cli_json("db", "upgrade")
    assert (desk.folder / "from-file" / "appliance.db").exists()


def test_a_misspelt_setting_is_mentioned(desk: ApplianceProcess) -> None:
    desk.environment["APPLIANCE_PROT"] = "8081"
    done = desk.cli("db", "upgrade", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["changed"] is True
    assert json.loads(done.stderr)["name"] == "APPLIANCE_PROT"


def test_the_data_folder_is_private(migrated: ApplianceProcess) -> None:
    for path in (migrated.data_dir, migrated.data_dir / "appliance.db"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_a_file_where_the_data_folder_should_be(desk: ApplianceProcess) -> None:
    desk.data_dir.write_text("")
    assert_failed(desk.cli("db", "upgrade"), says=str(desk.data_dir))
    assert_failed(desk.cli("keys", "list"), says=str(desk.data_dir))


# --- database -------------------------------------------------------------------------------------


def test_upgrading_twice_changes_once(desk: ApplianceProcess) -> None:
    first = desk.cli_json("db", "upgrade")
    second = desk.cli_json("db", "upgrade")
    assert first == {"before": None, "after": first["after"], "changed": True}
    assert second == {"before": first["after"], "after": first["after"], "changed": False}
    assert first["after"]
    assert f"up to date ({first['after']})" in desk.cli("db", "upgrade").stdout


@pytest.mark.parametrize(
    "words",
    [
        ("kb", "list"),
        ("kb", "import", str(FAQS)),
        ("keys", "create", "--role", "admin"),
        ("ask", "x"),
        ("eval",),
        ("api",),
    ],
    ids=" ".join,
)
def test_without_a_database_commands_say_what_to_do(
    words: tuple[str, ...], desk: ApplianceProcess
) -> None:
    assert_failed(desk.cli(*words), hint="appliance db upgrade")


def test_a_database_that_is_none(desk: ApplianceProcess) -> None:
    desk.data_dir.mkdir()
    (desk.data_dir / "appliance.db").write_bytes(b"not a database at all\n" * 200)
    assert_failed(desk.cli("db", "upgrade"), says="not an SQLite database")
    assert_failed(desk.cli("kb", "list"), says="not an SQLite database")


# --- knowledge ------------------------------------------------------------------------------------


def test_articles_are_imported_and_listed(migrated: ApplianceProcess) -> None:
    first = migrated.cli_json("kb", "import", str(FAQS))
    assert first == {"added": 30, "changed": 0, "removed": 0, "unchanged": 0, "version": 1}
    again = migrated.cli_json("kb", "import", str(FAQS))
    assert again == {"added": 0, "changed": 0, "removed": 0, "unchanged": 30, "version": 1}
    listed = migrated.cli_json("kb", "list")
    shipped = json.loads(FAQS.read_text(encoding="utf-8"))
    assert listed == {"faqs": [faq | {"id": str(faq["id"])} for faq in shipped["faqs"]]}
    assert "How do I reset my password?" in migrated.cli("kb", "list").stdout


def test_what_is_listed_can_be_imported(migrated: ApplianceProcess) -> None:
    migrated.cli_json("kb", "import", str(FAQS))
    listed = migrated.cli("kb", "list", "--json").stdout
    file = migrated.folder / "listed.json"
    file.write_text(listed, encoding="utf-8")
    assert migrated.cli_json("kb", "import", str(file), "--replace")["unchanged"] == 30


def test_articles_are_changed_and_replaced(migrated: ApplianceProcess) -> None:
    folder = migrated.folder
    first = faqs(folder, entry(1), entry("two"), entry(3, question="Ünïcödé \U0001f600?"))
    assert migrated.cli_json("kb", "import", first)["added"] == 3
    second = faqs(folder, entry("1", answer="Another answer."), entry(4))
    changed = migrated.cli_json("kb", "import", second)
    assert changed == {"added": 1, "changed": 1, "removed": 0, "unchanged": 0, "version": 2}
    replaced = migrated.cli_json("kb", "import", second, "--replace")
    assert replaced == {"added": 0, "changed": 0, "removed": 2, "unchanged": 2, "version": 3}
    listed = migrated.cli_json("kb", "list")["faqs"]
    assert [article["id"] for article in listed] == ["1", "4"]
    assert listed[0]["answer"] == "Another answer."


def test_several_files_are_one_import(migrated: ApplianceProcess) -> None:
    folder = migrated.folder
    one, two = faqs(folder, entry(1), name="one.json"), faqs(folder, entry(2), name="two.json")
    assert migrated.cli_json("kb", "import", one, two)["added"] == 2
    twice = faqs(folder, entry(2), entry(3), name="three.json")
    assert_failed(migrated.cli("kb", "import", one, two, twice), says="2")
    bad = faqs(folder, entry(5), entry(6, category="Sales"), name="bad.json")
    assert_failed(migrated.cli("kb", "import", faqs(folder, entry(4)), bad), says="entry 2")
    assert len(migrated.cli_json("kb", "list")["faqs"]) == 2


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "line 1"),
    "not JSON": (b"{\n  broken", "line 2"),
    "not UTF-8": (b'{"faqs": [{"id": 1, "question": "caf\xe9"}]}', "UTF-8"),
    "no list": (b'{"articles": []}', "faqs"),
    "an empty list": (b'{"faqs": []}', "faqs"),
    "a list": (b"[]", "faqs"),
    "nested too deeply": (b"[" * 100_000, ""),
    "an entry that is none": (b'{"faqs": [1]}', "entry 1"),
    "no id": (b'{"faqs": [{"question": "Q", "answer": "A", "category": "General"}]}', '"id"'),
    # Python itself refuses to read a number this long, with an error of its own.
    "an id of thousands of digits": (b'{"faqs": [{"id": %s}]}' % (b"9" * 5_000), ""),
}


@pytest.mark.parametrize("kind", list(BAD_FILES))
def test_bad_knowledge_files_are_refused(kind: str, migrated: ApplianceProcess) -> None:
    content, says = BAD_FILES[kind]
    file = migrated.folder / "bad.json"
    file.write_bytes(content)
    with pytest.raises(KnowledgeFileError) as refused:
        read_faqs(file)
    assert says in refused.value.detail
    assert str(file) in refused.value.detail


BAD_ENTRIES: list[dict[str, Any]] = [
    {"id": True},
    {"id": 1.5},
    {"id": None},
    {"id": " "},
    {"id": "x" * 129},
    {"id": "a\x00b"},
    {"id": "\ud800"},
    {"question": ""},
    {"question": None},
    {"question": "x" * 501},
    {"answer": " "},
    {"answer": "x" * 20_001},
    {"answer": "a\x00b"},
    {"answer": "\ud800"},
    {"category": "Sales"},
    {"category": "general"},
    {"category": ["General"]},
]


@pytest.mark.parametrize("changes", BAD_ENTRIES, ids=lambda changes: ascii(changes)[:30])
def test_bad_entries_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(KnowledgeFileError, match="entry 2"):
        read_faqs(Path(faqs(tmp_path, entry(1), entry(2) | changes)))


def test_the_command_refuses_bad_files_and_imports_nothing(migrated: ApplianceProcess) -> None:
    file = migrated.folder / "bad.json"
    for kind in ("not JSON", "not UTF-8", "an empty list"):
        file.write_bytes(BAD_FILES[kind][0])
        done = migrated.cli("kb", "import", str(file))
        assert_failed(done, says=str(file), hint="faqs")
    bad = faqs(migrated.folder, entry(1), entry(2, category="Sales"))
    assert_failed(migrated.cli("kb", "import", bad), says="entry 2")
    assert migrated.cli_json("kb", "list") == {"faqs": []}


@pytest.mark.timeout(900)  # the first to ask makes the engine's weights
def test_searching_without_a_running_appliance(prepared_home: Path) -> None:
    desk = ApplianceProcess(None)
    try:
        give_prepared(prepared_home, desk.data_dir)
        desk.fill()
        found = desk.cli_json("kb", "search", "I forgot my password", "--limit", "3")
        assert set(found) == {"items"}
        assert len(found["items"]) == 3
        assert found["items"][0]["id"] == "21"
        wanted = {"id", "title", "content", "category", "score"}
        assert all(set(item) == wanted for item in found["items"])
        done = desk.cli("kb", "search", "I forgot my password", "--category", "Account")
        assert done.returncode == 0
        assert done.stdout.splitlines()[1].endswith("How do I reset my password?")
        assert_failed(desk.cli("kb", "search", " "), says="empty")
    finally:
        desk.clean()


# --- keys -----------------------------------------------------------------------------------------


def test_keys_are_made_listed_and_revoked(migrated: ApplianceProcess) -> None:
    made = migrated.cli_json("keys", "create", "--role", "agent", "--name", "desk 1")
    assert set(made) == {"id", "key", "role"}
    assert made["role"] == "agent"
    assert re.fullmatch(r"ssa_[\w-]{40,}", made["key"])
    tied = migrated.cli_json("keys", "create", "--role", "customer", "--user", "u1", "--days", "1")
    done = migrated.cli("keys", "list", "--json")
    listed = {key["id"]: key for key in json.loads(done.stdout)}
    assert set(listed) == {made["id"], tied["id"]}
    assert (listed[made["id"]]["name"], listed[made["id"]]["role"]) == ("desk 1", "agent")
    assert listed[tied["id"]]["user_id"] == "u1"
    assert listed[tied["id"]]["expires_at"]
    plain = migrated.cli("keys", "list").stdout
    for secret in (made["key"], tied["key"], made["key"].removeprefix("ssa_")):
        assert secret not in done.stdout
        assert secret not in plain
        assert secret.encode() not in (migrated.data_dir / "appliance.db").read_bytes()
    revoked = migrated.cli_json("keys", "revoke", made["id"])
    assert revoked == {"id": made["id"], "revoked": True}
    assert_failed(migrated.cli("keys", "revoke", made["id"]), says="no such key")
    assert_failed(migrated.cli("keys", "revoke", "unknown"), says="no such key")
    listed = {key["id"]: key for key in migrated.cli_json("keys", "list")}
    assert listed[made["id"]]["revoked_at"]
    assert listed[tied["id"]]["revoked_at"] is None


def test_a_key_alone_is_on_stdout(migrated: ApplianceProcess) -> None:
    """So that KEY=$(appliance keys create --role admin) works."""
    done = migrated.cli("keys", "create", "--role", "admin")
    assert re.fullmatch(r"ssa_[\w-]{40,}\n", done.stdout)
    assert "not shown again" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--role", "agent", "--user", "u"),
        ("--role", "customer", "--user", ""),
        ("--role", "customer", "--user", "u" * 129),
        ("--role", "customer", "--name", "n" * 501),
        ("--role", "customer", "--days", "99999999999"),
        ("--role", "customer", "--user", "\udcff"),
    ],
    ids=lambda options: ascii(" ".join(options[2:]))[:24],
)
def test_keys_that_make_no_sense(options: tuple[str, ...], migrated: ApplianceProcess) -> None:
    done = migrated.cli("keys", "create", *options)
    if done.returncode == 2:
        assert_usage(done)
    else:
        assert_failed(done)
    assert migrated.cli_json("keys", "list") == []


# --- models ---------------------------------------------------------------------------------------

GGUF = b"GGUF" + (3).to_bytes(4, "little") + bytes(64)


def test_models_are_listed_and_shown(desk: ApplianceProcess) -> None:
    listed = desk.cli_json("models", "list")
    assert set(listed) == {"active", "models"}
    assert listed["active"] == "smollm2-135m"
    models = {model["name"]: model for model in listed["models"]}
    assert "llama-3.3-70b-instruct" in models
    assert [name for name, model in models.items() if model["active"]] == ["smollm2-135m"]
    assert [name for name, model in models.items() if model["available"]] == ["smollm2-135m"]
    shown = desk.cli_json("models", "show", "smollm2-135m")
    assert shown == models["smollm2-135m"]
    assert shown["licence"] == "Apache-2.0"
    assert Path(shown["path"]).is_file()
    plain = desk.cli("models", "list")
    assert plain.returncode == 0
    assert "smollm2-135m" in plain.stdout
    assert desk.cli("models", "show", "llama-3.2-1b-instruct").returncode == 0
    assert_failed(desk.cli("models", "show", "gpt-5"), says="gpt-5")


def test_the_embedded_model_is_verified(desk: ApplianceProcess) -> None:
    verified = desk.cli_json("models", "verify", "smollm2-135m")
    assert set(verified) == {"name", "verified", "file", "sha256", "size"}
    assert verified["verified"] is True
    assert re.fullmatch(r"[0-9a-f]{64}", verified["sha256"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", b""),
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", b"PK\x03\x04" + bytes(64)),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", GGUF),
        ("unknown.gguf", GGUF),
    ],
    ids=["empty", "not GGUF", "not the known hash", "unknown name"],
)
def test_bad_weights_are_not_added(name: str, content: bytes, desk: ApplianceProcess) -> None:
    file = desk.folder / name
    file.write_bytes(content)
    assert_failed(desk.cli("models", "add", str(file)))
    weights = desk.data_dir / "weights"
    assert not weights.exists() or list(weights.iterdir()) == []


def test_pickled_weights_are_not_added(desk: ApplianceProcess) -> None:
    file = desk.folder / "pytorch_model.bin"
    file.write_bytes(b"\x80\x04N.")
    done = desk.cli("models", "add", str(file), "--name", "llama-3.2-1b-instruct")
    assert_failed(done, hint="pickle")
    assert_failed(desk.cli("models", "add", str(file), "--name", "gpt-5"), says="gpt-5")


def test_added_weights_are_watched(desk: ApplianceProcess) -> None:
    file = desk.folder / "Llama-3.2-1B-Instruct-Q4_K_M.gguf"
    file.write_bytes(GGUF)
    added = desk.cli_json("models", "add", str(file))
    assert set(added) == {"name", "file", "sha256", "size"}
    assert (added["name"], added["size"]) == ("llama-3.2-1b-instruct", len(GGUF))
    assert desk.cli_json("models", "show", "llama-3.2-1b-instruct")["available"] is True
    assert desk.cli_json("models", "verify", "llama-3.2-1b-instruct")["verified"] is True
    (desk.data_dir / "weights" / file.name).write_bytes(GGUF + b"!")
    done = desk.cli("models", "verify", "llama-3.2-1b-instruct")
    assert_failed(done, says="has changed")
    assert_failed(desk.cli("models", "verify", "llama-3.2-3b-instruct"), hint="models add")


def test_a_model_is_chosen_for_the_next_start(desk: ApplianceProcess) -> None:
    used = desk.cli_json("models", "use", "smollm2-135m")
    assert used == {"model": "smollm2-135m", "running": False}
    assert_failed(desk.cli("models", "use", "llama-3.1-8b-instruct"), hint="models add")
    assert_failed(desk.cli("models", "use", "gpt-5"), says="gpt-5")
    assert desk.cli_json("models", "list")["active"] == "smollm2-135m"
    file = desk.folder / "Llama-3.2-1B-Instruct-Q4_K_M.gguf"
    file.write_bytes(GGUF)
    desk.cli_json("models", "add", str(file))
    desk.cli_json("models", "use", "llama-3.2-1b-instruct")
    assert desk.cli_json("models", "list")["active"] == "llama-3.2-1b-instruct"


# --- doctor ---------------------------------------------------------------------------------------


def test_the_doctor_on_an_empty_folder_says_what_to_do(desk: ApplianceProcess) -> None:
    done = desk.cli("doctor", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert set(report) == {"well", "findings"}
    assert report["well"] is False
    findings = {finding["what"]: finding for finding in report["findings"]}
    assert all(set(finding) == {"what", "state", "detail", "hint"} for finding in findings.values())
    bad = {what for what, finding in findings.items() if finding["state"] == "bad"}
    assert {"database"} <= bad <= {"database", "folders"}
    assert "appliance db upgrade" in findings["database"]["hint"]
    assert "appliance up" in findings["engine"]["hint"]
    assert "appliance up" in findings["api"]["hint"]
    plain = desk.cli("doctor")
    assert plain.returncode == 1
    assert "BAD   database" in plain.stdout
    # The page has 80 columns.
    assert f"-> {findings['database']['hint']}" in " ".join(plain.stdout.split())


def test_the_doctor_changes_nothing(desk: ApplianceProcess) -> None:
    """An administrator who runs it as root, before the service ever ran, must not leave folders
    behind that the service's own user cannot write."""
    desk.cli("doctor")
    assert list(desk.folder.iterdir()) == []
    assert not desk.sockets.exists()


def test_the_doctor_after_the_first_steps(migrated: ApplianceProcess) -> None:
    before = migrated.cli_json("doctor")
    assert before["well"] is True
    states = {finding["what"]: finding["state"] for finding in before["findings"]}
    assert states["database"] == "warn"
    migrated.cli_json("kb", "import", str(FAQS))
    after = migrated.cli_json("doctor")["findings"]
    states = {finding["what"]: finding["state"] for finding in after}
    assert {what for what, state in states.items() if state != "ok"} <= {
        *("engine", "api", "worker", "disk", "clock", "memory", "backup")
    }
    assert [f["detail"] for f in after if f["what"] == "database"] == ["migrated, 30 articles"]


def test_the_doctor_finds_what_is_broken(migrated: ApplianceProcess) -> None:
    migrated.environment |= {
        "APPLIANCE_MODEL": "gpt-5",
        "APPLIANCE_EMBEDDINGS_DIR": str(migrated.folder),
        "APPLIANCE_PROT": "1",
    }
    done = migrated.cli("doctor", "--json")
    assert done.returncode == 1
    states = {f["what"]: f["state"] for f in json.loads(done.stdout)["findings"]}
    assert states["model"] == states["embeddings"] == "bad"
    assert states["configuration"] == "warn"


# --- manners --------------------------------------------------------------------------------------


def test_a_reader_that_stops_reading_is_no_error(migrated: ApplianceProcess) -> None:
    migrated.cli_json("kb", "import", str(FAQS))
    done = subprocess.run(
        f"'{sys.executable}' -m appliance kb list --json | head -c 1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        env=migrated.environment,
        cwd=migrated.folder,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("{", "", 0)


def test_the_command_of_the_package_is_the_same(migrated: ApplianceProcess) -> None:
    script = Path(sys.executable).with_name("appliance")
    done = subprocess.run(
        [script, "keys", "list", "--json"],
        env=migrated.environment,
        cwd=migrated.folder,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, json.loads(done.stdout)) == (0, [])


def test_text_that_the_terminal_cannot_show_is_no_error(migrated: ApplianceProcess) -> None:
    file = faqs(migrated.folder, entry("é", question="Grüße \U0001f600?"))
    migrated.cli_json("kb", "import", file)
    environment = clean_environment(APPLIANCE_DATA_DIR=str(migrated.data_dir))
    environment = {n: v for n, v in environment.items() if n not in ("LANG", "PYTHONUTF8")}
    for setting in ({"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"}):
        for words in (("kb", "list"), ("kb", "list", "--json")):
            done = subprocess.run(
                [*COMMAND, *words], env=environment | setting, capture_output=True
            )
            assert done.returncode == 0, done.stderr
            assert "Grüße" in done.stdout.decode("utf-8")

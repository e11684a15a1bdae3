"""One object of settings: where they come from, what is refused, whose folders they name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from appliance.errors import SettingsError
from appliance.llm.remote_access import read_key
from appliance.settings import (
    HOME,
    OFFLINE_ENVIRONMENT,
    SOCKET_PATH_MAX,
    Settings,
    enforce_offline,
    ensure_folders,
    installed_under,
    load_settings,
    notify_socket,
    unknown_variables,
)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("APPLIANCE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """pytest's own temporary folders are too deep for sockets."""
    with tempfile.TemporaryDirectory(prefix="ssa-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "appliance.toml"
    monkeypatch.setenv("APPLIANCE_CONFIG", str(path))
    return path


# --- where settings come from ---------------------------------------------------------------------


def test_without_anything_the_defaults_are_safe_offline() -> None:
    settings = load_settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.resolved_database_url == f"sqlite:///{settings.data_dir / 'appliance.db'}"
    assert settings.data_dir.name == "var"


def test_the_toml_file_is_read(toml: Path) -> None:
    toml.write_text('port = 9000\ndesk_name = "Harbour Desk"\n', "utf-8")
    settings = load_settings()
    assert (settings.port, settings.desk_name) == (9000, "Harbour Desk")


def test_the_environment_wins_over_the_file(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text('port = 9000\nhost = "0.0.0.0"\n', "utf-8")
    monkeypatch.setenv("APPLIANCE_PORT", "9001")
    settings = load_settings()
    assert (settings.port, settings.host) == (9001, "0.0.0.0")


def test_arguments_win_over_both(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml.write_text("port = 9000\n", "utf-8")
    monkeypatch.setenv("APPLIANCE_PORT", "9001")
    assert load_settings(port=9002).port == 9002


VALUES_BY_TYPE: dict[Any, str] = {int: "16384", float: "1.5", str: "debug", bool: "True"}
VALUES_BY_NAME = {
    "engine_streams": "8",
    "languages": "en de",
    "queue_url": "redis://127.0.0.1/0",
    "session_hours": "24",
    "vllm_extra_args": "--seed=1",
    "vllm_url": "http://127.0.0.1:8001",
    "webhook_retry_seconds": "5 300",
}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_has_a_variable_and_a_description(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = Settings.model_fields[name]
    value = VALUES_BY_NAME.get(name) or VALUES_BY_TYPE.get(field.annotation, "/tmp/x")
    if get_origin(field.annotation) is Literal:
        value = next(v for v in get_args(field.annotation) if v not in ("", field.default))
    monkeypatch.setenv(f"APPLIANCE_{name.upper()}", value)
    read = getattr(load_settings(), name)
    assert (" ".join(map(str, read)) if isinstance(read, list) else str(read)) == value
    assert field.description
    assert field.description.endswith(".")


def test_a_stray_env_file_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("APPLIANCE_PORT=9999\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_settings().port == 8080


@pytest.mark.parametrize(
    "name",
    [
        "data_dir",
        "runtime_dir",
        "embeddings_dir",
        "vllm_model_dir",
        "vllm_python",
        "remote_key_file",
    ],
)
@pytest.mark.parametrize("given", ["relative/folder", "./here", "~/there"])
def test_folders_are_absolute(name: str, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"APPLIANCE_{name.upper()}", given)
    folder = getattr(load_settings(), name)
    assert folder.is_absolute()
    assert "~" not in str(folder)


@pytest.mark.parametrize("name", ["data_dir", "runtime_dir", "embeddings_dir"])
def test_a_folder_set_to_nothing_is_the_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``APPLIANCE_RUNTIME_DIR=`` in an environment file means."""
    default = getattr(load_settings(), name)
    monkeypatch.setenv(f"APPLIANCE_{name.upper()}", "")
    assert getattr(load_settings(), name) == default


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('prot = 9000\n', "prot"),
        ('[server]\nport = 9000\n', "server"),
        ("port = 70000\n", "port"),
        ('port = "many"\n', "port"),
        ('log_level = "loud"\n', "log_level"),
        ("engine_queue = 0\n", "engine_queue"),
        ("engine_timeout = 0\n", "engine_timeout"),
        (f'desk_name = "{"x" * 81}"\n', "desk_name"),
        ("port = \n", "appliance.toml"),
        ("= 5", "appliance.toml"),
    ],
)  # fmt: skip
def test_a_wrong_line_in_the_file_is_named(toml: Path, content: str, named: str) -> None:
    toml.write_text(content, "utf-8")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert named in error.value.detail


def test_a_file_that_is_not_utf_8_is_refused(toml: Path) -> None:
    toml.write_bytes('desk_name = "Büro"\n'.encode("latin-1"))
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert "appliance.toml" in error.value.detail


def test_a_config_file_that_is_missing_is_refused(toml: Path) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert str(toml) in error.value.detail


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("APPLIANCE_PORT", "eighty"),
        ("APPLIANCE_PORT", "-1"),
        ("APPLIANCE_LOG_LEVEL", "LOUD"),
        ("APPLIANCE_MAX_BODY_BYTES", "1"),
        ("APPLIANCE_VISITOR_QUERIES_PER_MINUTE", "0"),
    ],
)
def test_a_wrong_variable_is_named(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert variable.removeprefix("APPLIANCE_").lower() in error.value.detail


def test_unknown_variables_are_reported_and_known_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("APPLIANCE_PROT", "APPLIANCE_PORT", "APPLIANCE_CONFIG", "APPLIANCE_A", "OTHER"):
        monkeypatch.setenv(name, "1")
    for name in Settings.model_fields:
        monkeypatch.setenv(f"APPLIANCE_{name.upper()}", "1")
    assert unknown_variables() == ["APPLIANCE_A", "APPLIANCE_PROT"]


@pytest.mark.parametrize(
    "url",
    [
        "http://0.0.0.0:8000",
        "http://192.168.1.5:8000",
        "http://gpu.lan:8000",
        "http://localhost:8000",
        "https://127.0.0.1:8000",
        "http://127.0.0.1",
        "http://127.0.0.1:8000/v1",
        "http://127.0.0.1:8000?x",
        "http://me:secret@127.0.0.1:8000",
        "http://127.0.0.1@10.0.0.1:8000",
        "http://127.0.0.1:99999",
        "http://[::1",
        "127.0.0.1:8000",
        "vllm",
    ],
)
def test_vllm_anywhere_but_on_this_machine_is_refused(url: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(vllm_url=url)
    assert error.value.detail == "vllm_url: vLLM has to be on this machine: http://127.0.0.1:PORT"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://127.0.0.2:8000", "http://[::1]:80"])
def test_vllm_on_this_machine_is_accepted(url: str) -> None:
    assert load_settings(vllm_url=url).vllm_url == url
    assert load_settings(vllm_url=f"{url}/").vllm_url == url


def test_a_list_is_words_in_a_variable_and_a_list_in_the_file(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml.write_text('vllm_extra_args = ["--seed", "1 2"]\n', "utf-8")
    assert load_settings().vllm_extra_args == ["--seed", "1 2"]
    monkeypatch.setenv("APPLIANCE_VLLM_EXTRA_ARGS", "--seed '1 2'")
    assert load_settings().vllm_extra_args == ["--seed", "1 2"]
    monkeypatch.setenv("APPLIANCE_VLLM_EXTRA_ARGS", "--seed '1")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert "vllm_extra_args" in error.value.detail


def test_settings_do_not_change_after_they_were_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]


# --- folders --------------------------------------------------------------------------------------


def test_two_data_folders_have_two_socket_folders(tmp_path: Path) -> None:
    one = load_settings(data_dir=tmp_path / "one")
    two = load_settings(data_dir=tmp_path / "two")
    assert one.sockets != two.sockets
    assert one.engine_socket.parent == one.api_socket.parent == one.sockets
    assert one.engine_socket != one.api_socket


def test_one_data_folder_has_one_socket_folder_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path)
    spellings = ["one", "./one", str(tmp_path / "one"), f"{tmp_path}/one/", "two/../one"]
    assert len({load_settings(data_dir=spelling).sockets for spelling in spellings}) == 1


def test_the_socket_folder_is_short_however_deep_the_data_lie() -> None:
    deep = Path("/tmp") / "/".join(["a-long-folder-name"] * 20)
    settings = load_settings(data_dir=deep)
    assert len(os.fsencode(settings.sockets / "engine-0000000000.sock")) <= SOCKET_PATH_MAX


def test_a_runtime_folder_that_was_named_is_used(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path, runtime_dir=tmp_path / "run")
    assert settings.sockets == tmp_path / "run"


def test_folders_are_made_private(short_folder: Path) -> None:
    settings = load_settings(data_dir=short_folder / "data", runtime_dir=short_folder / "run")
    ensure_folders(settings)
    ensure_folders(settings)
    for folder in (settings.data_dir, settings.sockets):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_socket_path_too_long_for_the_kernel_is_refused(short_folder: Path) -> None:
    fitting = SOCKET_PATH_MAX - len(os.fsencode(short_folder)) - len("//engine-0000000000.sock")
    longest = short_folder / ("x" * fitting)
    ensure_folders(load_settings(data_dir=short_folder / "data", runtime_dir=longest))
    too_long = short_folder / ("y" * (fitting + 1))
    with pytest.raises(SettingsError) as error:
        ensure_folders(load_settings(data_dir=short_folder / "data", runtime_dir=too_long))
    assert "APPLIANCE_RUNTIME_DIR" in error.value.hint


def test_the_length_of_a_path_is_counted_in_bytes(short_folder: Path) -> None:
    wide = short_folder / ("é" * 45)
    assert len(str(wide / "engine-0000000000.sock")) <= SOCKET_PATH_MAX
    with pytest.raises(SettingsError):
        ensure_folders(load_settings(data_dir=short_folder / "data", runtime_dir=wide))


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702, 0o1777])
def test_a_socket_folder_that_others_can_write_is_refused(short_folder: Path, mode: int) -> None:
    run = short_folder / "run"
    run.mkdir()
    run.chmod(mode)
    with pytest.raises(SettingsError) as error:
        ensure_folders(load_settings(data_dir=short_folder / "data", runtime_dir=run))
    assert str(run) in error.value.detail


def test_a_link_in_place_of_the_socket_folder_is_refused(short_folder: Path) -> None:
    (short_folder / "real").mkdir(mode=0o700)
    (short_folder / "run").symlink_to(short_folder / "real")
    with pytest.raises(SettingsError):
        ensure_folders(
            load_settings(data_dir=short_folder / "data", runtime_dir=short_folder / "run")
        )


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_socket_folder_of_somebody_else_is_refused(short_folder: Path) -> None:
    run = short_folder / "run"
    run.mkdir(mode=0o700)
    os.chown(run, 65534, 65534)
    with pytest.raises(SettingsError):
        ensure_folders(load_settings(data_dir=short_folder / "data", runtime_dir=run))


def test_a_file_in_place_of_a_folder_is_refused(short_folder: Path) -> None:
    (short_folder / "data").write_text("in the way")
    with pytest.raises(SettingsError) as error:
        ensure_folders(load_settings(data_dir=short_folder / "data"))
    assert str(short_folder / "data") in error.value.detail


# --- offline --------------------------------------------------------------------------------------


def test_offline_switches_override_what_the_shell_exported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in OFFLINE_ENVIRONMENT:
        monkeypatch.setenv(name, "0" if OFFLINE_ENVIRONMENT[name] == "1" else "true")
    enforce_offline()
    assert {name: os.environ[name] for name in OFFLINE_ENVIRONMENT} == OFFLINE_ENVIRONMENT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_HUB_OFFLINE", "1"),
        ("TRANSFORMERS_OFFLINE", "1"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("DO_NOT_TRACK", "1"),
        ("VLLM_NO_USAGE_STATS", "1"),
        ("LANGSMITH_TRACING", "false"),
        ("LANGCHAIN_TRACING_V2", "false"),
    ],
)
def test_the_libraries_that_call_home_are_all_switched_off(name: str, value: str) -> None:
    assert OFFLINE_ENVIRONMENT[name] == value


@pytest.mark.parametrize(("value", "wanted"), [("/run/notify", "/run/notify"), ("", None)])
def test_the_service_managers_socket_is_systemds_variable(
    value: str, wanted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", value)
    assert notify_socket() == wanted
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert notify_socket() is None


def test_no_other_module_reads_the_environment() -> None:
    reading = re.compile(r"\benviron\.get\b|\benviron\[|\bgetenv\(|\bin os\.environ\b")
    readers = [
        str(path.relative_to(HOME))
        for path in sorted((HOME / "appliance").rglob("*.py"))
        if reading.search(path.read_text("utf-8"))
    ]
    assert readers == ["appliance/settings/environment.py"]


def test_importing_settings_needs_no_library_that_could_reach_out() -> None:
    code = (
        "import sys, appliance.settings;"
        "heavy = {'torch', 'transformers', 'langgraph', 'litestar', 'faiss', 'llama_cpp'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip() == "[]"


# --- where an installation keeps its things -------------------------------------------------------


@pytest.mark.parametrize(
    ("home", "root"),
    [
        ("/opt/appliance/releases/1.2.0", "/"),
        ("/srv/stage/opt/appliance/releases/1.2.0", "/srv/stage"),
        ("/opt/appliance/releases", None),
        ("/home/ada/opt/appliance", None),
        ("/home/ada/smartsupport", None),
    ],
)
def test_a_release_knows_the_root_it_was_installed_under(home: str, root: str | None) -> None:
    assert installed_under(Path(home)) == (Path(root) if root else None)


# --- what happens later ---------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["5 300 1800", "5,300,1800", [5, 300, 1800]])
def test_pauses_between_attempts_are_words_or_a_list(given: Any) -> None:
    assert Settings(webhook_retry_seconds=given).webhook_retry_seconds == [5, 300, 1800]


@pytest.mark.parametrize("given", ["soon", "0 5", "-1", " ".join(["1"] * 51)])
def test_other_pauses_are_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPLIANCE_WEBHOOK_RETRY_SECONDS", given)
    with pytest.raises(SettingsError, match="webhook_retry_seconds"):
        load_settings()


@pytest.mark.parametrize("url", ["amqp://here", "postgresql+psycopg://here/desk", "queue.db"])
def test_queues_that_there_are_not_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPLIANCE_QUEUE_URL", url)
    with pytest.raises(SettingsError, match="queue_url: A queue is one of"):
        load_settings()


# --- credentials ----------------------------------------------------------------------------------


def test_a_credential_is_the_file_that_no_setting_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "remote.key").write_text("gsk-one\n")
    (tmp_path / "tls.crt").write_text("\n")  # what a unit says where root keeps no such file
    found = load_settings()
    assert found.remote_key_file == tmp_path / "remote.key"
    assert (found.tls_cert_file, found.tls_key_file) == (None, None)
    assert load_settings(remote_key_file="/etc/key").remote_key_file == Path("/etc/key")
    # systemd may show the mask of an access list as the group's rights.
    (tmp_path / "remote.key").chmod(0o440)
    assert read_key(tmp_path / "remote.key") == "gsk-one"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert load_settings().remote_key_file is None
    with pytest.raises(SettingsError, match="can be read by other users"):
        read_key(tmp_path / "remote.key")


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("postgresql+psycopg://desk@db/desk", "postgresql+psycopg://desk:p%40ss%2Fw@db/desk"),
        ("postgresql+psycopg://desk:own@db/desk", "postgresql+psycopg://desk:own@db/desk"),
        ("postgresql+psycopg:///desk", "postgresql+psycopg:///desk"),
    ],
)
def test_a_password_goes_into_an_address_without_one(url: str, whole: str, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p@ss/w\n")
    found = load_settings(database_url=url, database_password_file=tmp_path / "password")
    assert found.resolved_database_url == whole
    (tmp_path / "password").unlink()
    if whole != url:
        with pytest.raises(SettingsError, match="database_password_file"):
            _ = found.resolved_database_url

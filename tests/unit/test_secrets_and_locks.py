"""Secrets are made once and kept private; locks are one process's and vanish with it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import make_url

from appliance.errors import SettingsError
from appliance.operations.locks import hold_lock
from appliance.operations.secrets import SIZE, load_secret, masked

# --- secrets --------------------------------------------------------------------------------------


def test_a_secret_is_made_once_and_then_the_same(tmp_path: Path) -> None:
    made = load_secret(tmp_path, "visitors")
    assert len(made) == SIZE == 32
    assert load_secret(tmp_path, "visitors") == made


def test_secrets_of_other_names_and_folders_are_others(tmp_path: Path) -> None:
    made = {
        load_secret(tmp_path / "one", "visitors"),
        load_secret(tmp_path / "one", "webhooks"),
        load_secret(tmp_path / "two", "visitors"),
    }
    assert len(made) == 3


def test_only_their_own_user_can_read_them(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load_secret(tmp_path, "visitors")
    finally:
        os.umask(before)
    folder = tmp_path / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "visitors").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["visitors"]


@pytest.mark.parametrize("content", [b"", b"short", b"x" * (SIZE - 1)])
def test_a_damaged_secret_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    load_secret(tmp_path, "visitors")
    path = tmp_path / "secrets" / "visitors"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as error:
        load_secret(tmp_path, "visitors")
    assert str(path) in error.value.detail
    assert error.value.hint
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("in the way")
    with pytest.raises(SettingsError) as error:
        load_secret(tmp_path, "visitors")
    assert str(tmp_path / "secrets" / "visitors") in error.value.detail


def test_what_a_crash_left_behind_does_not_stop_the_next_start(tmp_path: Path) -> None:
    """In a container the process id is the same at every start."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / f".visitors.{os.getpid()}").write_bytes(b"half")
    assert len(load_secret(tmp_path, "visitors")) == SIZE


LOADER = """
import sys
from pathlib import Path
from appliance.operations.secrets import load_secret
sys.stdin.readline()
print(load_secret(Path(sys.argv[1]), "visitors").hex())
"""


def test_processes_that_start_at_once_get_the_same_secret(tmp_path: Path) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", LOADER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    with ThreadPoolExecutor(len(started)) as threads:
        answers = list(threads.map(lambda process: process.communicate("\n", 60)[0], started))
    assert len(set(answers)) == 1
    assert len(bytes.fromhex(answers[0])) == SIZE
    assert [path.name for path in (tmp_path / "secrets").iterdir()] == ["visitors"]


@pytest.mark.parametrize("password", ["hunter2", "hun/ter2", "hun ter2", "hun:ter2", "hun'ter2"])
def test_whatever_an_address_takes_for_its_password_is_masked(password: str) -> None:
    for user in ("desk", "desk@corp", ""):
        address = f"postgresql+psycopg://{user}:{password}@db.example:5432/desk"
        assert make_url(address).password == password
        shown = "postgresql+psycopg://***@db.example:5432/desk"
        assert masked(address) == shown
        assert masked(f'database_url = "{address}"  # ours') == f'database_url = "{shown}"  # ours'
    query = f"postgresql+psycopg://db/desk?user=a&password={password}&connect_timeout=3"
    assert make_url(query).query["password"] == password
    assert masked(query) == "postgresql+psycopg://db/desk?user=a&password=***&connect_timeout=3"


def test_an_at_sign_in_a_password_hides_none_of_it() -> None:
    """urllib, and Redis with it, reads up to the last one."""
    assert urlsplit("redis://:hun@ter2@cache:6379/0").password == "hun@ter2"
    assert masked("redis://:hun@ter2@cache:6379/0") == "redis://***@cache:6379/0"


def test_two_addresses_are_masked_each() -> None:
    assert masked('["redis://a:x@one/0", "redis://b:y@two/0"]') == (
        '["redis://***@one/0", "redis://***@two/0"]'
    )
    assert masked(["http://127.0.0.1:8080/", "--api-key=x y"]) == [
        "http://127.0.0.1:8080/",
        "--api-key=***",
    ]


# --- locks ----------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from appliance.operations.locks import hold_lock
with hold_lock(Path(sys.argv[1])) as free:
    print(free, flush=True)
    time.sleep(60)
"""


@contextmanager
def held_elsewhere(path: Path) -> Iterator[subprocess.Popen[str]]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline().strip() == "True"
        yield holder
    finally:
        holder.kill()
        holder.wait(10)
        holder.stdout.close()


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    path = tmp_path / "up.lock"
    with hold_lock(path) as first:
        assert first
        with hold_lock(path) as second:
            assert not second
        with hold_lock(path) as third:
            assert not third, "one who was refused does not release it"
    with hold_lock(path) as again:
        assert again


def test_locks_of_other_names_do_not_matter(tmp_path: Path) -> None:
    with hold_lock(tmp_path / "a.lock") as one, hold_lock(tmp_path / "b.lock") as other:
        assert one
        assert other


def test_another_process_is_refused_until_the_holder_dies(tmp_path: Path) -> None:
    path = tmp_path / "up.lock"
    with held_elsewhere(path) as holder:
        with hold_lock(path) as free:
            assert not free
        holder.kill()
        holder.wait(10)
        with hold_lock(path) as free:
            assert free


def test_an_error_while_holding_releases_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "up.lock"

    def fail_while_holding() -> None:
        with hold_lock(path) as free:
            assert free
            raise RuntimeError("told to fail")

    with pytest.raises(RuntimeError):
        fail_while_holding()
    with hold_lock(path) as free:
        assert free


def test_a_program_started_meanwhile_does_not_inherit_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "up.lock"
    with hold_lock(path) as free:
        assert free
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", "import time; time.sleep(60)"], close_fds=False
        )
    try:
        # The kernel closes the child's copy a moment after the child has begun.
        deadline = time.monotonic() + 5
        while not _is_free(path):
            assert time.monotonic() < deadline, "the child holds the lock"
            time.sleep(0.01)
    finally:
        child.kill()
        child.wait(10)


def _is_free(path: Path) -> bool:
    with hold_lock(path) as free:
        return free


def test_the_lock_file_is_private_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "up.lock"
    with hold_lock(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.exists()

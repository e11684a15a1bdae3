"""The shell scripts: clean, and plain about what they do and what is wrong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.appliance_process import ROOT, clean_environment

SCRIPTS = ["install.sh", ".ci/run"]
INSTALL = ROOT / "install.sh"


def run(*words: str, script: Path = INSTALL, **options: object) -> subprocess.CompletedProcess[str]:
    given = {"env": clean_environment(), "cwd": "/", "stdin": subprocess.DEVNULL} | options
    return subprocess.run([script, *words], capture_output=True, text=True, **given)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_pass_shellcheck(name: str) -> None:
    beside = Path(sys.executable).with_name("shellcheck")
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if program is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no shellcheck")
    done = subprocess.run([program, ROOT / name], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_stop_at_the_first_error(name: str) -> None:
    script = ROOT / name
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert re.search(r"^set -euo pipefail$", text, re.MULTILINE)


def verbs() -> set[str]:
    """The verbs that install.sh acts on."""
    text = INSTALL.read_text(encoding="utf-8")
    cases = text.partition("case $verb in")[2].partition("esac")[0]
    patterns = re.findall(r"^\s+([\w| -]+)\)", cases, re.MULTILINE)
    return {verb.strip() for pattern in patterns for verb in pattern.split("|")}


@pytest.mark.parametrize("words", [(), ("help",), ("--help",), ("-h",)])
def test_help_lists_every_verb(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")
    listed = set(re.findall(r"^  ([a-z]+)\b", done.stdout, re.MULTILINE))
    assert listed == {verb for verb in verbs() if not verb.startswith("-")}
    assert {"demo", "test", "help"} <= listed


@pytest.mark.parametrize("verb", ["dmeo", "--nonsense", "demo2"])
def test_an_unknown_verb_is_wrong_usage(verb: str) -> None:
    done = run(verb)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: unknown verb '{verb}'\nhint: " in done.stderr
    assert "usage: ./install.sh" in done.stderr


def test_demo_takes_no_arguments() -> None:
    done = run("demo", "now")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .+\nhint: .+\n", done.stderr)


# --- on a machine that is not ready ---------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> tuple[Path, Path]:
    """A checkout that was never installed, and a PATH with little more than a shell."""
    checkout, programs = tmp_path / "check out", tmp_path / "bin"
    (checkout / ".constraints").mkdir(parents=True)
    shutil.copy(INSTALL, checkout)
    shutil.copy(ROOT / "pyproject.toml", checkout)
    for file in (ROOT / ".constraints").glob("*.txt"):
        shutil.copy(file, checkout / ".constraints")
    programs.mkdir()
    for name in ("bash", "env", "cat", "sha256sum", "dirname", "readlink", "df", "awk", "mktemp"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    return checkout, programs


def demo(checkout: Path, programs: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(programs), "HOME": str(checkout)} | variables
    done = run("demo", script=checkout / "install.sh", env=environment)
    assert not (checkout / ".venv").exists()
    assert not (checkout / "var").exists()
    return done


def test_without_python_it_says_so(bare: tuple[Path, Path]) -> None:
    done = demo(*bare)
    assert done.returncode == 1
    assert re.fullmatch(r"error: Python 3\.11 or newer is needed\nhint: .+\n", done.stderr)


def test_an_old_python_is_passed_over(bare: tuple[Path, Path]) -> None:
    old = bare[1] / "python3"
    old.write_text("#!/usr/bin/env bash\nexit 1\n")
    old.chmod(0o755)
    done = demo(*bare)
    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr


def test_without_a_compiler_it_says_so(bare: tuple[Path, Path]) -> None:
    done = demo(*bare, PYTHON=sys.executable)
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: a C\+\+ compiler is needed.*\nhint: .*apt install g\+\+\n", done.stderr
    )


def test_without_room_it_says_so(bare: tuple[Path, Path]) -> None:
    for name, text in {"c++": "exit 0", "df": "printf 'head\\n/dev/x 9 9 123 9%% /\\n'"}.items():
        program = bare[1] / name
        program.unlink(missing_ok=True)
        program.write_text(f"#!/usr/bin/env bash\n{text}\n")
        program.chmod(0o755)
    done = demo(*bare, PYTHON=sys.executable)
    assert done.returncode == 1
    assert re.match(r"error: only 123 MiB are free here", done.stderr)


# --- what docs/install.md tells people to type ----------------------------------------------------


def told_commands() -> list[list[str]]:
    text = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    found = re.findall(r"^ +(?:sudo )?\./install\.sh (.+)$", text, re.MULTILINE)
    return [line.split() for line in found]


def test_the_guide_names_verbs_and_options_that_exist() -> None:
    commands = told_commands()
    assert {words[0] for words in commands} == {
        *("verify", "install", "upgrade", "rollback", "uninstall")
    }
    text = INSTALL.read_text(encoding="utf-8")
    for verb, *words in commands:
        taken = re.search(rf'^    read_options {verb} "([^"]+)"', text, re.MULTILINE)
        assert taken is not None
        options = [word for word in words if word.startswith("--")]
        assert set(options) <= set(taken[1].split()), verb

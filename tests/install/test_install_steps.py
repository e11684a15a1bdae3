"""What install.sh does below a root, with a bundle of a made-up product: the whole way in, on and
out, and what it refuses."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.settings import Settings
from tests.appliance_process import ROOT, clean_environment
from tests.install.toy_bundle import make_folder, make_key, pack, sign
from tests.install.trees import tree_hash

pytestmark = pytest.mark.loopback

STATE = "var/lib/appliance"
CALLS = f"{STATE}/calls"
"""What the toy notes about each of its commands; the second run of an installation asks some."""


class Desk:
    """A root, and install.sh working below it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = make_key(folder)
        self.root = folder / "root"
        self.root.mkdir()
        (folder / "tmp").mkdir()

    @property
    def environment(self) -> dict[str, str]:
        # A developer's shell must not decide what an installation runs.
        return clean_environment(
            TMPDIR=str(self.folder / "tmp"),
            PYTHONPATH=str(ROOT),
            PIP_TARGET="/nowhere",
            APPLIANCE_DATA_DIR="/nowhere",
        )

    def bundle(
        self, version: str, change: Callable[[tarfile.TarInfo], tarfile.TarInfo] = lambda m: m
    ) -> Path:
        """The bundle of a version."""
        file = self.folder / f"{version}.tar"
        if not file.exists():
            pack(make_folder(self.folder, self.key, version=version), file, self.key, change)
        return file

    def run(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        given = {"env": self.environment, "cwd": "/", "stdin": subprocess.DEVNULL} | options
        return subprocess.run(
            [ROOT / "install.sh", *words, "--root", self.root],
            capture_output=True,
            text=True,
            **given,
        )

    def done(self, *words: str | Path, **options: Any) -> str:
        """Run it; it has to succeed. What it said."""
        done = self.run(*words, **options)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout

    def findings(self, *words: str | Path) -> list[str]:
        """What stands in the way of ``install`` with these words, which changes nothing."""
        before = tree_hash(self.root)
        done = self.run("install", *words)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "nothing was changed" in done.stderr
        assert tree_hash(self.root) == before
        return re.findall(r"^  BAD   (.+)$", done.stdout, re.MULTILINE)

    def path(self, name: str) -> Path:
        return self.root / name

    def names(self) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in self.root.rglob("*")}

    def kept(self, name: str) -> Any:
        """What the toy keeps under a name."""
        return json.loads(self.path(f"{STATE}/{name}").read_text())

    @property
    def release(self) -> Path:
        return self.path("opt/appliance/current").resolve()


def bold(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Modes, which nobody signed, as an attacker would like them."""
    member.mode |= stat.S_ISUID | 0o022
    return member


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """An installation. The tests of it run in the order in which they stand here."""
    made = Desk(tmp_path_factory.mktemp("desk"))
    said = made.done("install", "--bundle", made.bundle("1.0.0", bold), "--yes", "--port", "18080")
    (made.folder / "said").write_text(said)
    return made


@pytest.fixture
def bare(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# --- installed ------------------------------------------------------------------------------------


def test_one_command_leads_to_an_answer_and_a_key(desk: Desk) -> None:
    said = (desk.folder / "said").read_text()
    assert said.startswith("Checks; nothing is changed yet:\n")
    assert said.index("Checks") < said.index("==>")
    assert "serves at http://127.0.0.1:18080/\n" in said
    assert re.search(r"^First question:  Why\?\nFirst answer:    Because\. \[1\]$", said, re.M)
    assert said.endswith("\nAdmin key, shown this once:  sk-admin\n")
    assert (desk.kept("keys"), desk.kept("running")) == (["admin"], ["1.0.0"])


def test_everything_lies_where_it_belongs(desk: Desk) -> None:
    assert desk.path("opt/appliance/current").readlink() == Path("releases/1.0.0")
    assert [p.name for p in desk.path("opt/appliance/releases").iterdir()] == ["1.0.0"]
    assert not (desk.release / ".incomplete").exists()
    assert stat.S_IMODE(desk.path(STATE).stat().st_mode) == 0o700
    assert stat.S_IMODE(desk.path("etc/appliance/appliance.toml").stat().st_mode) == 0o640
    assert desk.path("etc/appliance/release.pub").read_bytes() == (
        desk.key.with_suffix(".pub").read_bytes()
    )
    assert desk.path(f"{STATE}/weights/Toy.Q4_0.gguf").exists()
    assert list((desk.folder / "tmp").iterdir()) == []


def test_modes_are_not_taken_from_the_archive(desk: Desk) -> None:
    for path in desk.release.rglob("*"):
        if not path.is_symlink():
            assert not path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID | 0o022), path


def test_the_command_runs_the_release_in_charge_and_nothing_else(desk: Desk) -> None:
    done = subprocess.run(
        [desk.path("usr/local/bin/appliance"), "kb", "list"],
        env=desk.environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["faqs"][0]["question"] == "Why?"


def test_a_second_run_changes_nothing(desk: Desk) -> None:
    before = tree_hash(desk.root, without={CALLS})
    said = desk.done("install", "--bundle", desk.bundle("1.0.0"), "--yes")
    assert "==>" not in said
    assert "Admin key" not in said
    assert "It has an admin key." in said
    assert tree_hash(desk.root, without={CALLS}) == before


def test_the_unpacked_bundle_installs_itself(desk: Desk) -> None:
    """By the install.sh in it, which says the same."""
    top = desk.folder / "smartsupport-appliance-1.0.0"
    done = subprocess.run(
        [top / "install.sh", "install", "--check", "--root", desk.root],
        env=desk.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("Nothing stands in the way.\n")


def test_another_version_is_an_upgrade(desk: Desk) -> None:
    found = desk.findings("--bundle", desk.bundle("2.0.0"), "--yes")
    assert found == [f"version 1.0.0 is installed under {desk.root}"]


def test_another_build_of_the_version_is_refused(desk: Desk, tmp_path: Path) -> None:
    top = shutil.copytree(desk.folder / "smartsupport-appliance-1.0.0", tmp_path / "again")
    told = (top / "BUNDLE.json").read_text()
    (top / "BUNDLE.json").write_text(told.replace("0123abc", "4567def"))
    sign(top, desk.key)
    found = desk.findings("--bundle", top, "--yes")
    assert found == ["another build of version 1.0.0 is there (commit 0123abc)"]


def test_edited_settings_stay(desk: Desk) -> None:
    settings = desk.path("etc/appliance/appliance.toml")
    before = settings.read_text()
    edited = before.replace("#desk_name", "desk_name")
    settings.write_text(edited)
    said = desk.done("install", "--bundle", desk.bundle("1.0.0"), "--yes")
    assert "which was edited" in said
    assert settings.read_text() == edited
    assert settings.with_name("appliance.toml.new").read_text() == before
    assert "==>" not in desk.done("install", "--bundle", desk.bundle("1.0.0"), "--yes")


def test_an_edited_unit_stays_beside_the_new_one(desk: Desk) -> None:
    unit = desk.path("etc/systemd/system/appliance-api.service")
    local = desk.path("etc/systemd/system/appliance-api.service.d/local.conf")
    local.parent.mkdir()
    local.write_text("[Service]\nNice=5\n")
    shipped = unit.read_text()
    unit.write_text(shipped + "# mine\n")
    said = desk.done("upgrade", "--bundle", desk.bundle("2.0.0"), "--yes")
    assert f"Keeping the edited {unit} as appliance-api.service.edited" in said
    assert unit.with_name("appliance-api.service.edited").read_text() == shipped + "# mine\n"
    assert unit.read_text() == "[Unit]\nDescription=Toy 2.0.0\n"
    assert local.read_text() == "[Service]\nNice=5\n"


def test_after_an_upgrade_the_new_version_is_in_charge(desk: Desk) -> None:
    assert desk.release.name == "2.0.0"
    assert desk.kept("running") == ["2.0.0"]
    before = tree_hash(desk.root, without={CALLS})
    assert "==>" not in desk.done("upgrade", "--bundle", desk.bundle("2.0.0"), "--yes")
    assert tree_hash(desk.root, without={CALLS}) == before


def test_a_dry_run_says_and_changes_nothing(desk: Desk) -> None:
    before = tree_hash(desk.root)
    for words in (
        ("uninstall", "--purge", "--dry-run"),
        ("upgrade", "--bundle", desk.bundle("3.0.0"), "--dry-run"),
        ("rollback", "--dry-run"),
    ):
        said = desk.done(*words)
        assert "  would: " in said
        assert said.endswith("Nothing was changed.\n")
    assert tree_hash(desk.root) == before


def test_data_go_only_after_their_own_word(desk: Desk) -> None:
    before = tree_hash(desk.root)
    for word in ("", "yes\n", "y\n"):
        done = desk.run("uninstall", "--purge", stdin=None, input=word)
        assert done.returncode == 1
        assert "Type 'purge'" in done.stdout
        assert tree_hash(desk.root) == before


def test_removed_it_leaves_settings_and_data_alone(desk: Desk) -> None:
    def mine() -> str:
        return tree_hash(desk.path(STATE), without={"calls", "running"}) + tree_hash(
            desk.path("etc/appliance")
        )

    before = mine()
    said = desk.done("uninstall", "--yes")
    assert f"Kept: {desk.root}/etc/appliance, {desk.root}/{STATE} and " in said
    assert mine() == before
    assert desk.kept("running") == []
    left = {name for name in desk.names() if not name.startswith((STATE, "etc/appliance"))}
    assert left == {
        *("etc", "etc/systemd", "etc/systemd/system", "var", "var/lib"),
        "etc/systemd/system/appliance-api.service.edited",
        "etc/systemd/system/appliance-api.service.d",
        "etc/systemd/system/appliance-api.service.d/local.conf",
    }


def test_purged_it_leaves_nothing(desk: Desk) -> None:
    desk.path(f"{STATE}-release/backups").mkdir(parents=True)
    desk.done("uninstall", "--purge", stdin=None, input="purge\n")
    assert desk.names() == set()
    assert list((desk.folder / "tmp").iterdir()) == []


# --- interrupted ----------------------------------------------------------------------------------


def test_killed_at_any_step_it_is_completed_by_the_next_run(bare: Desk) -> None:
    command = [
        *(ROOT / "install.sh", "install", "--root", bare.root, "--yes"),
        *("--bundle", bare.bundle("1.0.0"), "--host", "0.0.0.0", "--port", "18081"),
        "--tls-self-signed",
    ]
    killed: list[str] = []
    while True:
        process = subprocess.Popen(
            command,
            env=bare.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("==> ") and line not in killed:
                killed.append(line)
                os.killpg(process.pid, signal.SIGKILL)
                break
        process.stdout.close()
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL, said
    assert len(killed) >= 11
    assert "Admin key, shown this once:  sk-admin" in said
    assert (bare.kept("keys"), bare.kept("running")) == (["admin"], ["1.0.0"])
    assert not [name for name in bare.names() if re.search(r"\.(part|incomplete|staging.*)$", name)]
    assert_certificate(bare.path("etc/appliance/tls"))
    settings = bare.path("etc/appliance/appliance.toml").read_text()
    assert settings.endswith(
        f'host = "0.0.0.0"\nport = 18081\n'
        f'tls_cert_file = "{bare.root}/etc/appliance/tls/cert.pem"\n'
        f'tls_key_file = "{bare.root}/etc/appliance/tls/key.pem"\n'
    )
    bare.done("uninstall", "--purge", "--yes")
    assert bare.names() == set()


def assert_certificate(folder: Path) -> None:
    """Of this machine's name and addresses, and its key is for nobody else."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o640
    text = subprocess.run(
        ["openssl", "x509", "-in", certificate, "-noout", "-ext", "subjectAltName"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in (f"DNS:{socket.gethostname()}", "DNS:localhost", "IP Address:127.0.0.1"):
        assert name in text


# --- refused --------------------------------------------------------------------------------------


def test_it_asks_before_it_changes_anything(bare: Desk) -> None:
    before = tree_hash(bare.root)
    done = bare.run("install", "--bundle", bare.bundle("1.0.0"))
    assert done.returncode == 1
    assert "Type 'yes'" in done.stdout
    assert "error: nothing was changed\n" in done.stderr
    assert tree_hash(bare.root) == before


def test_a_machine_that_does_not_fit_is_told_everything_at_once(bare: Desk) -> None:
    top = make_folder(bare.folder, bare.key)
    told = json.loads((top / "BUNDLE.json").read_text())
    told |= {"python": "3.99", "glibc": "9.99", "glibcxx": "9.9", "machine": "pdp11"}
    (top / "BUNDLE.json").write_text(json.dumps(told))
    sign(top, bare.key)
    found = bare.findings("--bundle", top, "--key", bare.key.with_suffix(".pub"), "--check")
    assert len(found) == 4
    assert found[0].startswith("no Python 3.99 with venv")
    assert "the bundle is for pdp11" in found[1]
    assert found[2].startswith("the bundle needs glibc 9.99 or newer")
    assert found[3].startswith("the bundle needs libstdc++ GLIBCXX_9.9 or newer, here is GLIBCXX_")
    told |= {"python": "3.11", "glibc": "2.1", "glibcxx": "3.4.9", "machine": os.uname().machine}
    told |= {"cpu_flags": "sse2 avx9"}
    (top / "BUNDLE.json").write_text(json.dumps(told))
    sign(top, bare.key)
    found = bare.findings("--bundle", top, "--key", bare.key.with_suffix(".pub"), "--check")
    assert found == ["the processor lacks avx9"]


def test_a_port_in_use_and_an_open_address_are_refused(bare: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        found = bare.findings(
            *("--bundle", bare.bundle("1.0.0"), "--yes", "--port", port, "--host", "0.0.0.0")
        )
    assert found == [
        f"port {port} is in use",
        "0.0.0.0 can be reached by other machines, and keys would travel unencrypted",
    ]


def test_files_of_others_are_left_alone(bare: Desk) -> None:
    for name in (
        *("opt/appliance/old-desk/run", "usr/local/bin/appliance"),
        "opt/appliance/releases/1.0.0/notes",
    ):
        bare.path(name).parent.mkdir(parents=True)
        bare.path(name).write_text("mine\n")
        found = bare.findings("--bundle", bare.bundle("1.0.0"), "--yes")
        assert len(found) == 1
        assert str(bare.path("opt/appliance")) in found[0] or "is somebody else's" in found[0]
        shutil.rmtree(bare.root)
        bare.root.mkdir()


def test_a_folder_elsewhere_is_refused(bare: Desk) -> None:
    (bare.folder / "elsewhere").mkdir()
    bare.path("opt").symlink_to(bare.folder / "elsewhere")
    found = bare.findings("--bundle", bare.bundle("1.0.0"), "--yes")
    assert len(found) == 1
    assert "lies elsewhere by a link" in found[0]


def test_two_at_once_are_one(bare: Desk) -> None:
    bare.path("opt/appliance").mkdir(parents=True)
    lock = os.open(bare.path("opt/appliance"), os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = bare.run("install", "--bundle", bare.bundle("1.0.0"), "--yes")
    finally:
        os.close(lock)
    assert done.returncode == 1
    assert f"another install.sh works on {bare.root}" in done.stderr
    assert bare.names() == {"opt", "opt/appliance"}


def test_without_an_installation_there_is_nothing_to_upgrade_or_take_back(bare: Desk) -> None:
    done = bare.run("upgrade", "--bundle", bare.bundle("1.0.0"), "--yes")
    assert done.returncode == 1
    assert f"nothing is installed under {bare.root}" in done.stdout
    assert bare.run("rollback", "--yes").returncode == 1
    assert bare.names() == set()


@pytest.mark.parametrize(
    "words",
    [
        ("install", "--purge"),
        ("install", "--bundle"),
        ("install", "now"),
        ("install", "--port", "eighty"),
        ("install", "--port", "65536"),
        ("install", "--host", "a b"),
        ("install", "--root", "/tmp/two words"),
        ("uninstall", "--check"),
        ("rollback", "--bundle", "x"),
        ("verify", "x", "--yes"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [ROOT / "install.sh", *words], env=clean_environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .+\nhint: .+\n", done.stderr)


# --- its settings ---------------------------------------------------------------------------------


def test_what_the_settings_file_mentions_are_settings_with_their_defaults() -> None:
    text = (ROOT / "install.sh").read_text()
    head = text.partition("settings_head() {")[2].partition("\nTOML\n")[0]
    mentioned = re.findall(r"^#(\w+) = (.+)$", head, re.MULTILINE)
    assert len(mentioned) >= 5
    for name, value in mentioned:
        assert json.loads(value) == Settings.model_fields[name].default, name

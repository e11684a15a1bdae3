"""A bundle that is not to the last byte what was signed changes nothing."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.appliance_process import ROOT, clean_environment
from tests.install.toy_bundle import make_folder, make_key, pack, sign
from tests.install.trees import tree_hash

Member = tarfile.TarInfo


class Toy:
    """One good bundle, as a folder and as a tar, and an installation's root that holds a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = make_key(folder)
        self.top = make_folder(folder, self.key)
        self.root = folder / "root"
        (self.root / "etc").mkdir(parents=True)
        (self.root / "etc/hostname").write_text("desk\n")

    def packed(self, change: Callable[[Member], Member | None] = lambda member: member) -> Path:
        return pack(self.top, self.folder / "toy.tar", self.key, change)

    def refused(self, bundle: Path, *words: str) -> str:
        """Try to install it; what was said, after looking that nothing else happened."""
        before = tree_hash(self.root)
        done = run("install", "--bundle", str(bundle), "--root", str(self.root), "--yes", *words)
        assert done.returncode == 1, done.stdout + done.stderr
        assert done.stderr.startswith("error: 1 of these stand in the way; nothing was changed\n")
        assert "==>" not in done.stdout
        assert tree_hash(self.root) == before
        return done.stdout.partition("  BAD   ")[2].partition("\n")[0]


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    given = {"env": clean_environment(), "cwd": "/", "stdin": subprocess.DEVNULL} | options
    if words[0] == "install":  # a desk of this machine's own may have the usual one
        words += ("--port", "1")
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [ROOT / "install.sh", *words], capture_output=True, text=True, **given
    )


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return Toy(tmp_path_factory.mktemp("refused"))


def changed(content: bytes) -> bytes:
    """The content with one byte changed in its middle, or one where there is none."""
    if not content:
        return b"\0"
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def spoiled(toy: Toy) -> Iterator[tuple[Path, bytes | None]]:
    """Each file of the bundle with what it is to become; None: removed."""
    for path in sorted(toy.top.rglob("*")):
        if path.is_file():
            yield path, changed(path.read_bytes())
            yield path, None


def refuses(toy: Toy, path: Path, becomes: bytes | None) -> None:
    kept, name = path.read_bytes(), path.relative_to(toy.top).as_posix()
    try:
        path.unlink() if becomes is None else path.write_bytes(becomes)
        said = toy.refused(toy.packed())
    finally:
        path.write_bytes(kept)
    if name not in ("SHA256SUMS", "SHA256SUMS.sig", "BUNDLE.json"):
        kind = "everything but a file that is listed" if becomes is None else "a file that was"
        assert kind in said
        assert said.endswith(name)


def test_each_file_changed_by_a_byte_or_removed_is_refused(toy: Toy) -> None:
    for path, becomes in list(spoiled(toy))[::3]:
        refuses(toy, path, becomes)


@pytest.mark.full
def test_each_file_changed_by_a_byte_and_removed_is_refused(toy: Toy) -> None:
    for path, becomes in spoiled(toy):
        refuses(toy, path, becomes)


@pytest.mark.parametrize("name", ["more.txt", "tree/appliance/more.py", "wheels/more.whl"])
def test_a_file_more_is_refused(toy: Toy, name: str) -> None:
    more = toy.top / name
    more.write_text("import os\n")
    try:
        assert toy.refused(toy.packed()).endswith(f"a file that is not listed: {name}")
        assert toy.refused(toy.top, "--key", str(toy.folder / "key.pub")).endswith(name)
    finally:
        more.unlink()


def linked(member: Member, kind: bytes) -> Member:
    if member.name.endswith("LICENSES.txt"):
        member.type, member.linkname, member.size = kind, "/etc/passwd", 0
    return member


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_what_is_no_plain_file_is_refused(toy: Toy, kind: bytes) -> None:
    assert "a link or an odd name" in toy.refused(toy.packed(lambda m: linked(m, kind)))


def renamed(member: Member, to: str) -> Member:
    if member.name.endswith("LICENSES.txt"):
        member.name = to.replace("TOP", member.name.partition("/")[0])
    return member


@pytest.mark.parametrize(
    "name",
    [
        "/etc/cron.d/odd",
        "../odd",
        "TOP/../../odd",
        "TOP/./odd",
        "TOP//odd",
        "TOP/two words",
        "TOP/two\nlines",
        "TOP/ö",
        "TOP/$(id)",
        "other/LICENSES.txt",
        "smartsupport-appliance-9/LICENSES.txt",
        "TOP/BUNDLE.json",
    ],
)
def test_odd_names_are_refused(toy: Toy, name: str) -> None:
    said = toy.refused(toy.packed(lambda m: renamed(m, name)))
    assert any(
        words in said
        for words in ("an odd name", "two top folders", "a name that comes twice", "not listed")
    )


def test_what_is_no_whole_archive_is_refused(toy: Toy) -> None:
    bundle = toy.packed()
    whole = bundle.read_bytes()
    with tarfile.open(bundle) as tar:
        members = tar.getmembers()
    between, last = members[len(members) // 2], members[-1]
    content = last.offset_data + -(-last.size // 512) * 512
    # In a file, between two files, in a header, before the end, within the end.
    for cut in (last.offset_data + 1, between.offset, between.offset + 100, content, content + 512):
        bundle.write_bytes(whole[:cut])
        assert toy.refused(bundle) == f"{bundle} is no whole tar archive", cut
    bundle.write_bytes(b"#!/bin/sh\nexit 0\n" * 100)
    assert "no whole tar archive" in toy.refused(bundle)
    bundle.write_bytes(b"")
    toy.refused(bundle)
    bundle.unlink()
    assert toy.refused(bundle) == f"there is no bundle {bundle}"


def test_a_compressed_archive_is_not_unpacked(toy: Toy) -> None:
    packed = toy.packed()
    subprocess.run(["gzip", "--force", packed], check=True)
    shutil.move(f"{packed}.gz", packed)
    assert "no whole tar archive" in toy.refused(packed)


def test_an_archive_behind_the_archive_is_refused(toy: Toy) -> None:
    """tar stops at the first end; other programs read on."""
    bundle = toy.packed()
    more = io.BytesIO()
    with tarfile.open(fileobj=more, mode="w") as tar:
        tar.add(toy.top / "BUNDLE.json", f"{toy.top.name}/tree/more.py")
    with bundle.open("ab") as file:
        file.write(more.getvalue())
    assert toy.refused(bundle) == f"{bundle} holds something behind the archive"
    done = run("verify", str(bundle))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {bundle} holds something behind the archive\nhint: ")


# --- whose signature ------------------------------------------------------------------------------


def test_hashes_made_anew_need_the_key(toy: Toy, tmp_path: Path) -> None:
    top = shutil.copytree(toy.top, tmp_path / toy.top.name)
    (top / "tree/appliance/__init__.py").write_text("import os\n")
    signed = (top / "SHA256SUMS.sig").read_bytes()
    sign(top, make_key(tmp_path))
    said = toy.refused(pack(top, tmp_path / "a.tar", toy.key))
    assert said.startswith(f"the signature of {tmp_path}/a.tar is not by the key sha256:")
    (top / "SHA256SUMS.sig").write_bytes(signed)
    assert "the signature of" in toy.refused(pack(top, tmp_path / "a.tar", toy.key))


def test_a_bundle_without_a_key_beside_it_needs_one_named(toy: Toy, tmp_path: Path) -> None:
    bundle = toy.packed()
    bundle.with_name("toy.tar.pub").unlink()
    assert toy.refused(bundle) == f"{bundle}.pub is no public ed25519 key in PEM form"
    other = make_key(tmp_path).with_suffix(".pub")
    assert "is not by the key" in toy.refused(bundle, "--key", str(other))
    done = run("verify", str(bundle), "--key", str(toy.key.with_suffix(".pub")))
    assert (done.returncode, done.stderr) == (0, "")
    assert "is whole: 14 files" in done.stdout


def test_only_keys_of_the_one_kind_count(toy: Toy, tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", tmp_path / "k"],
        check=True,
    )
    public = tmp_path / "k.pub"
    subprocess.run(
        ["openssl", "pkey", "-in", tmp_path / "k", "-pubout", "-out", public], check=True
    )
    assert toy.refused(toy.packed(), "--key", str(public)).startswith(
        f"{public} is no public ed25519"
    )


def test_once_installed_only_the_first_key_signs(toy: Toy, tmp_path: Path) -> None:
    pinned = toy.root / "etc/appliance/release.pub"
    pinned.parent.mkdir(parents=True)
    try:
        shutil.copy(make_key(tmp_path).with_suffix(".pub"), pinned)
        said = toy.refused(toy.packed())
        assert said.endswith(f"(the key of this installation, {pinned})")
    finally:
        shutil.rmtree(pinned.parent)


# --- verify ---------------------------------------------------------------------------------------


def test_verify_says_what_it_found_and_leaves_nothing(toy: Toy, tmp_path: Path) -> None:
    bundle = toy.packed()
    before = tree_hash(toy.folder)
    private = tmp_path / "tmp"
    private.mkdir()
    done = run("verify", bundle.name, cwd=toy.folder, env=clean_environment(TMPDIR=str(private)))
    assert (done.returncode, done.stderr) == (0, "")
    assert "smartsupport-appliance 1.0.0 is whole: 14 files, commit 0123abc" in done.stdout
    assert "Signed by sha256:" in done.stdout
    assert tree_hash(toy.folder) == before
    assert list(private.iterdir()) == []


def test_verify_fails_in_the_shape_of_all_errors(toy: Toy) -> None:
    done = run("verify", "/nowhere/bundle.tar")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: there is no bundle /nowhere/bundle.tar\nhint: ")
    assert run("verify").returncode == 2


def test_verify_needs_no_python(toy: Toy, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in (
        *("bash", "env", "cat", "tar", "sh", "openssl", "awk", "sed", "tr", "cut", "head", "wc"),
        *("sha256sum", "dirname", "readlink", "mktemp", "rm", "cp", "du"),
    ):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    done = run("verify", str(toy.packed()), env={"PATH": str(programs)})
    assert (done.returncode, done.stderr) == (0, "")

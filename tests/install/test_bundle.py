"""Building a bundle: the same bytes twice, from a commit, with everything in it named."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tarfile
import venv
from importlib.resources import files as packaged_files
from pathlib import Path

import jsonschema_rs
import pytest
from click.testing import CliRunner

from appliance.cli.main import cli
from appliance.errors import BundleError
from appliance.operations.bundle import needs, packages, signing, tree
from appliance.operations.bundle.portable_llama import normalise
from appliance.operations.bundle.tree import SHIPPED
from appliance.operations.bundle.verify import verify
from tests.appliance_process import ROOT
from tests.install.small_bundle import MANIFEST, VERSION, changed, make_bundle, make_key, make_wheel


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, key: Path) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"), key)


@pytest.fixture(scope="module")
def unpacked(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["tar", "-xf", bundle, "-C", folder], check=True)
    return folder / f"smartsupport-appliance-{VERSION}"


def test_two_builds_have_the_same_bytes(bundle: Path, key: Path, tmp_path: Path) -> None:
    again = make_bundle(tmp_path, key)
    assert again.name == bundle.name == "smartsupport-appliance-9.8.7-cp311-linux_x86_64.tar"
    assert again.read_bytes() == bundle.read_bytes()


def test_the_archive_tells_nothing_of_who_packed_it(bundle: Path) -> None:
    with tarfile.open(bundle) as tar:
        members = tar.getmembers()
    assert [each.name for each in members] == sorted(each.name for each in members)
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}
    assert {m.mode for m in members} == {0o644, 0o755}


def test_a_servers_own_tools_check_it(unpacked: Path, bundle: Path) -> None:
    words = ["pkeyutl", "-verify", "-pubin", "-inkey", f"{bundle}.pub", "-rawin"]
    given = ["-in", unpacked / "SHA256SUMS", "-sigfile", unpacked / "SHA256SUMS.sig"]
    subprocess.run(["openssl", *words, *given], check=True)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=unpacked, check=True)
    listed = (unpacked / "SHA256SUMS").read_text().splitlines()
    there = [path for path in unpacked.rglob("*") if path.is_file()]
    assert len(listed) == len(there) - 2


def test_its_lock_installs_without_an_index(unpacked: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    words = ["install", "--quiet", "--no-index", "--find-links", unpacked / "wheels", "--no-deps"]
    hashed = ["--require-hashes", "--only-binary", ":all:", "-r", unpacked / "requirements.lock"]
    python = tmp_path / "venv/bin/python"
    pip = [python, "-m", "pip", "--isolated", "--disable-pip-version-check"]
    subprocess.run([*pip, *words, *hashed], check=True)
    subprocess.run([python, "-c", "import made_up_one, made_up_two"], check=True)


# --- who made what --------------------------------------------------------------------------------


def test_the_sbom_is_as_its_schema_wants_it(unpacked: Path) -> None:
    sbom = json.loads((unpacked / "sbom.cdx.json").read_text())
    folder = packaged_files("cyclonedx.schema._res")
    schemas = {
        f"http://cyclonedx.org/schema/{path.name}": json.loads(path.read_text())
        for path in folder.iterdir()
        if path.name.endswith(".schema.json")
    }
    schema = schemas["http://cyclonedx.org/schema/bom-1.6.SNAPSHOT.schema.json"]
    registry = jsonschema_rs.Registry(list(schemas.items()))
    validator = jsonschema_rs.validator_for(schema, registry=registry)
    assert [error.message for error in validator.iter_errors(sbom)] == []
    sbom["components"][0]["type"] = "thing"
    assert not validator.is_valid(sbom)


def test_the_sbom_names_packages_and_weights(unpacked: Path) -> None:
    sbom = json.loads((unpacked / "sbom.cdx.json").read_text())
    told = {
        each["name"]: (each["type"], each["licenses"][0].get("expression"))
        for each in sbom["components"]
    }
    assert told == {
        "made-up-one": ("library", "MIT"),
        "made-up-two": ("library", None),
        "llama-3.2-1b-instruct": ("machine-learning-model", None),
    }
    needed = {each["ref"]: each["dependsOn"] for each in sbom["dependencies"]}
    assert needed["pkg:pypi/made-up-one@1.0"] == ["pkg:pypi/made-up-two@1.0"]
    assert "pkg:pypi/made-up-one@1.0" in needed[sbom["metadata"]["component"]["bom-ref"]]


def test_licences_are_told_with_their_texts(unpacked: Path) -> None:
    text = (unpacked / "LICENSES.txt").read_text()
    assert "made-up-two" in text
    assert "Llama 3.2 Community License" in text
    assert "Do as you like." in text


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: Apache-2.0 OR BSD-3-Clause\n", ("Apache-2.0 OR BSD-3-Clause", True)),
        ("License: mit\n", ("MIT", True)),
        ("License: Apache 2.0\n", ("Apache-2.0", True)),
        ("License: MIT License\n        Copyright Somebody\n", ("MIT", True)),
        ("Classifier: License :: OSI Approved :: MIT License\n", ("MIT", True)),
        ("Classifier: License :: OSI Approved :: BSD License\n", ("BSD License", False)),
        ("License: Whatever\n", ("Whatever", False)),
        ("", ("see its licence file", False)),
    ],
)
def test_licences_are_read_as_packages_write_them(
    tmp_path: Path, metadata: str, licence: tuple[str, bool]
) -> None:
    wheel = packages.Wheel(make_wheel(tmp_path, "some", metadata=metadata))
    assert wheel.licence == licence


# --- wheels ---------------------------------------------------------------------------------------


def test_only_what_was_tested_may_come_along(tmp_path: Path) -> None:
    make_wheel(tmp_path, "some", "1.0+cpu")
    wheels = packages.in_folder(tmp_path)
    packages.check_pins(wheels, packages.pins("# tested\nsome==1.0\n"))
    for text in ("some==1.1\n", "other==1.0\n"):
        with pytest.raises(BundleError, match=r"some-1\.0\+cpu-.* is not what was tested"):
            packages.check_pins(wheels, packages.pins(text))


def test_two_versions_of_a_package_are_one_too_many(tmp_path: Path) -> None:
    make_wheel(tmp_path, "some", "1.0")
    make_wheel(tmp_path, "some", "1.1")
    with pytest.raises(BundleError, match="some twice"):
        packages.in_folder(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(BundleError, match=r"notes\.txt is no wheel"):
        packages.in_folder(tmp_path)


def test_what_compiled_code_needs_is_read_from_tags_or_from_the_code(tmp_path: Path) -> None:
    tag = "cp311-cp311-manylinux_2_28_x86_64.manylinux_2_31_x86_64"
    make_wheel(tmp_path, "tagged", tag=tag)
    assert needs.libraries(packages.in_folder(tmp_path)) == ("2.28", "3.4")
    code = {"lib/some.so.1": b"\0GLIBC_2.4\0GLIBC_2.34\0GLIBCXX_3.4.29\0GLIBC_2.9\0"}
    make_wheel(tmp_path, "compiled", tag="py3-none-linux_x86_64", files=code)
    assert needs.libraries(packages.in_folder(tmp_path)) == ("2.34", "3.4.29")


def test_a_wheel_written_again_is_the_same_whenever_it_was_made(tmp_path: Path) -> None:
    first = make_wheel(tmp_path / "a", "some", files={"b": b"2", "a": b"1"})
    second = make_wheel(tmp_path / "b", "some", files={"a": b"1", "b": b"2"})
    for source in (first, second):
        normalise(source, source.with_name("again"), {"some_lib/libgomp.so.1": b"library"})
    written = [source.with_name("again").read_bytes() for source in (first, second)]
    assert first.read_bytes() != second.read_bytes()
    assert written[0] == written[1]
    first.with_name("again").replace(first)
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index"]
    subprocess.run([*pip, "--quiet", "--no-deps", "--target", target, first], check=True)
    assert (target / "some_lib/libgomp.so.1").read_bytes() == b"library"


# --- the tree -------------------------------------------------------------------------------------


def git(folder: Path, *words: str) -> None:
    who = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b.c"}
    who |= {"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@b.c"}
    dated = {
        "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
        "GIT_AUTHOR_DATE": "2025-01-01T00:00:00Z",
    }
    environment = os.environ | who | dated
    subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True, env=environment)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "appliance").mkdir(parents=True)
    (folder / "tests").mkdir()
    (folder / "appliance/__init__.py").write_text('__version__ = "1.2.3"\n')
    (folder / "tests/test_it.py").write_text("")
    (folder / "install.sh").write_text("#!/bin/sh\n")
    (folder / "install.sh").chmod(0o755)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def test_the_tree_is_what_was_committed_without_the_tests(checkout: Path) -> None:
    found = tree.read(checkout)
    assert set(found.files) == {"appliance/__init__.py", "install.sh"}
    assert found.files["install.sh"].program
    assert not found.files["appliance/__init__.py"].program
    assert (found.dirty, tree.iso(found.created)) == (False, "2026-01-01T00:00:00Z")


def test_changed_files_are_refused_unless_allowed(checkout: Path) -> None:
    (checkout / "appliance/more.py").write_text("more = 1\n")
    with pytest.raises(
        BundleError, match=r"differs from its commit in 1 files: \?\? appliance/more"
    ):
        tree.read(checkout)
    found = tree.read(checkout, allow_dirty=True)
    assert found.dirty
    assert found.files["appliance/more.py"].read() == b"more = 1\n"
    git(checkout, "checkout", ".")


def test_links_are_not_shipped(checkout: Path) -> None:
    (checkout / "appliance/link").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match="appliance/link is a link"):
        tree.read(checkout, allow_dirty=True)
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "second")
    with pytest.raises(BundleError, match="appliance/link is a link"):
        tree.read(checkout)


def test_a_release_has_its_tree_and_its_commit_without_git(unpacked: Path, tmp_path: Path) -> None:
    release = tmp_path / "release"
    subprocess.run(["cp", "-R", unpacked / "tree", release], check=True)
    with pytest.raises(BundleError, match="neither a git checkout nor a release"):
        tree.read(release)
    (release / "BUNDLE.json").write_bytes((unpacked / "BUNDLE.json").read_bytes())
    (release / "appliance/__pycache__").mkdir()
    (release / "appliance/__pycache__/__init__.cpython-311.pyc").write_bytes(b"made here")
    (release / ".venv").mkdir()
    found = tree.read(release)
    assert (found.commit, tree.iso(found.created)) == (MANIFEST.commit, MANIFEST.created)
    assert set(found.files) == {
        path.relative_to(unpacked / "tree").as_posix()
        for path in (unpacked / "tree").rglob("*")
        if path.is_file()
    }


def test_all_that_a_release_consists_of_is_there() -> None:
    assert [name for name in SHIPPED if not (ROOT / name).exists()] == []


# --- keys and commands ----------------------------------------------------------------------------


def test_a_key_is_the_signers_alone_and_never_overwritten(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert signing.public_half(key) == signing.public_file(key).read_bytes()
    with pytest.raises(BundleError, match="exists already"):
        signing.make_key(key)
    signed = signing.sign(b"text", key)
    assert signed == signing.sign(b"text", key)
    assert signing.check(b"text", signed, signing.public_half(key))
    assert not signing.check(b"test", signed, signing.public_half(key))


def run(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["bundle", *map(str, words)])
    if isinstance(done.exception, BundleError):
        return 1, done.exception.detail
    return done.exit_code, done.stdout


def test_verify_says_whose_signature_it_is(bundle: Path, key: Path) -> None:
    status, said = run("verify", bundle)
    assert status == 0
    print_of = signing.fingerprint(signing.public_half(key))
    assert f"Signed by {print_of} (the key beside the bundle, not known before)." in said
    told = json.loads(run("verify", bundle, "--key", signing.public_file(key), "--json")[1])
    assert (told["verified"], told["fingerprint"], told["version"]) == (True, print_of, VERSION)


def test_verify_fails_by_its_status(bundle: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path)
    assert run("verify", bundle, "--key", signing.public_file(other))[0] == 1
    assert run("verify", tmp_path / "none")[0] == 2


def test_show_tells_parts_sizes_and_licences(bundle: Path) -> None:
    told = json.loads(run("show", bundle, "--json")[1])
    assert set(told["folders"]) == {".", "tree", "weights", "wheels"}
    licences = {each["name"]: each["licence"] for each in told["components"]}
    assert licences["llama-3.2-1b-instruct"] == "Llama 3.2 Community License"
    assert "made-up-one" in run("show", bundle)[1]


def test_keygen_names_both_halves(tmp_path: Path) -> None:
    told = json.loads(run("keygen", tmp_path / "k", "--json")[1])
    assert Path(told["public"]).read_bytes() == signing.public_half(Path(told["key"]))
    assert run("keygen", tmp_path / "k")[0] == 1


def test_a_version_with_a_suffix_is_another_version(key: Path, tmp_path: Path) -> None:
    other = make_bundle(tmp_path, key, changed(MANIFEST, version=f"{VERSION}.1"))
    assert verify(other, signing.public_half(key)).manifest.version == "9.8.7.1"

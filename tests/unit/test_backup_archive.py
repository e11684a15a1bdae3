"""The backup's file: what tar and sha256sum make of it, and what is refused of a hostile one."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from appliance.errors import BackupRefused
from appliance.operations.backup import archive
from appliance.operations.backup.archive import BLOCK, Archive
from appliance.operations.backup.manifest import (
    FORMAT,
    MEMBERS_MAX,
    PRODUCT,
    Manifest,
    Member,
    decode,
    encode,
)

CONTENTS = {
    "database.sqlite": b"SQLite format 3\0" + bytes(range(256)) * 9,
    "configuration.json": b"{}\n",
    "state/heads/learned-0001.npz": b"",
    "state/engine/active.json": b"x" * BLOCK,
}


def manifest_of(sources: dict[str, Path]) -> Manifest:
    return Manifest(
        format=FORMAT,
        product=PRODUCT,
        version="0.1.0",
        id="ab" * 16,
        created=datetime(2026, 11, 24, 2, 30, tzinfo=UTC),
        scheduled=True,
        place="here",
        database="sqlite",
        revision="1",
        tables={},
        answers=None,
        serves="smollm2-135m",
        models=[],
        secrets={},
        left_out=[],
        members=[
            Member(name, path.stat().st_size, archive.digest(path))
            for name, path in sources.items()
        ],
    )


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    sources = {}
    for number, (name, content) in enumerate(CONTENTS.items()):
        sources[name] = tmp_path / f"source-{number}"
        sources[name].write_bytes(content)
    target = tmp_path / "backup.tar"
    archive.write(target, manifest_of(sources), sources)
    return target


def unpacked(path: Path) -> dict[str, bytes]:
    folder = path.parent / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with Archive.open(path) as opened:
        found = opened.unpack(folder)
        assert sorted(found.values()) == sorted(folder.iterdir())
        return {name: each.read_bytes() for name, each in found.items()}


def refused(path: Path) -> str:
    with pytest.raises(BackupRefused) as error:
        unpacked(path)
    assert error.value.hint
    # Nothing was written but what has a name of ours.
    folder = path.parent / "unpacked"
    assert all(each.name.endswith(".member") for each in folder.iterdir())
    return error.value.detail


def test_what_is_written_is_read_again(backup: Path) -> None:
    assert unpacked(backup) == CONTENTS
    assert backup.stat().st_mode & 0o777 == 0o600


def test_tar_and_sha256sum_can_take_it_apart(backup: Path, tmp_path: Path) -> None:
    """Without the appliance, on any machine."""
    folder = tmp_path / "by-hand"
    folder.mkdir()
    subprocess.run(["tar", "-xf", backup, "-C", folder], check=True)
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=folder, check=True)
    assert (folder / "database.sqlite").read_bytes() == CONTENTS["database.sqlite"]


def test_every_changed_byte_is_noticed(backup: Path, tmp_path: Path) -> None:
    """Of headers and texts those that mean something: owners, times and dots of a header do not."""
    whole = backup.read_bytes()
    damaged = tmp_path / "damaged.tar"
    unnoticed = []
    for at in range(0, len(whole), 61):
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            found = unpacked(damaged)
        except BackupRefused:
            continue
        unnoticed.append(at)
        assert found == CONTENTS
    assert unnoticed == []


def test_every_shorter_or_longer_file_is_refused(backup: Path, tmp_path: Path) -> None:
    whole = backup.read_bytes()
    other = tmp_path / "other.tar"
    for length in [*range(0, len(whole), 211), len(whole) - 1]:
        other.write_bytes(whole[:length])
        refused(other)
    other.write_bytes(whole + b"\0")
    assert "end" in refused(other)


def _link(info: tarfile.TarInfo) -> None:
    info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0


def _hard_link(info: tarfile.TarInfo) -> None:
    info.type, info.linkname, info.size = tarfile.LNKTYPE, "manifest.json", 0


def _device(info: tarfile.TarInfo) -> None:
    info.type, info.size = tarfile.CHRTYPE, 0


def _folder(info: tarfile.TarInfo) -> None:
    info.type, info.size = tarfile.DIRTYPE, 0


def _sparse(info: tarfile.TarInfo) -> None:
    info.type = tarfile.GNUTYPE_SPARSE


def _elsewhere(info: tarfile.TarInfo) -> None:
    info.name = "../../etc/cron.d/appliance"


def _absolute(info: tarfile.TarInfo) -> None:
    info.name = "/etc/cron.d/appliance"


def _endless(info: tarfile.TarInfo) -> None:
    info.size = 2**62


def _extended(info: tarfile.TarInfo) -> None:
    info.pax_headers = {"comment": "x" * 10_000}


HOSTILE = [_link, _hard_link, _device, _folder, _sparse, _elsewhere, _absolute, _endless, _extended]


@pytest.mark.parametrize("place", [0, 1, 2, 4])
@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__.strip("_"))
def test_anything_but_the_expected_file_is_refused(
    backup: Path, tmp_path: Path, change: Callable[[tarfile.TarInfo], None], place: int
) -> None:
    hostile = tmp_path / "hostile.tar"
    with tarfile.open(backup) as tar, hostile.open("wb") as out:
        for number, info in enumerate(tar.getmembers()):
            content = tar.extractfile(info)
            assert content is not None
            text = content.read()
            if number == place:
                change(info)
            out.write(info.tobuf(tarfile.PAX_FORMAT if info.pax_headers else tarfile.GNU_FORMAT))
            out.write(text + bytes(-len(text) % BLOCK))
        out.write(bytes(2 * BLOCK))
    refused(hostile)


def test_one_file_more_is_refused(backup: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.tar"
    shutil.copy(backup, more)
    with tarfile.open(more, "a", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("state/heads/learned-0002.npz")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    assert "end" in refused(more)


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    for name, content in {"empty": b"", "text": b"hello" * 1_000, "zeros": bytes(10_240)}.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name)
    with pytest.raises(BackupRefused), Archive.open(tmp_path / "nowhere"):
        pass
    with pytest.raises(BackupRefused), Archive.open(tmp_path):
        pass


# --- the manifest ---------------------------------------------------------------------------------


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    (tmp_path / "database").write_bytes(b"x")
    return manifest_of({"database.sqlite": tmp_path / "database"})


@pytest.mark.parametrize(
    "name",
    [
        *("../appliance.db", "/etc/passwd", "state/../secrets/webhooks", "state/secrets/webhooks"),
        *("state//heads/learning.json", "state/heads/../learning.json", "secrets/webhooks"),
        *("state/weights/x.gguf", "state/restore.json", "database.dump", "", "state/heads/x.npz"),
        *("state/heads/learned-0001.npz\n", "state/heads/learned-0001.npz\0"),
    ],
)
def test_a_manifest_names_nothing_but_what_backups_have(manifest: Manifest, name: str) -> None:
    odd = Member(name, 1, "0" * 64)
    with pytest.raises(BackupRefused):
        decode(encode(msgspec.structs.replace(manifest, members=[*manifest.members, odd])))


def test_manifests_that_make_no_sense_are_refused(manifest: Manifest) -> None:
    database = manifest.members[0]
    for changes in (
        {"members": []},
        {"members": [database, database]},
        {"members": [msgspec.structs.replace(database, size=-1)]},
        {"members": [msgspec.structs.replace(database, sha256="0")]},
        {
            "members": [
                database,
                *(
                    Member(f"state/heads/learned-{n:04}.npz", 0, "0" * 64)
                    for n in range(MEMBERS_MAX)
                ),
            ]
        },
        {"format": 2},
        {"product": "another"},
    ):
        with pytest.raises(BackupRefused):
            decode(encode(msgspec.structs.replace(manifest, **changes)))
    for text in (b"", b"[]", b"{}", b"\xff", encode(manifest).replace(b'"place"', b'"plaice"')):
        with pytest.raises(BackupRefused):
            decode(text)
    assert decode(encode(manifest)) == manifest


def test_a_newer_format_says_which_release_reads_it(manifest: Manifest) -> None:
    with pytest.raises(BackupRefused) as error:
        decode(encode(msgspec.structs.replace(manifest, format=7)))
    assert "format 7" in error.value.detail
    assert "newer" in error.value.hint

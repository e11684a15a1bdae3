"""A bundle that is not to the last byte what was signed is refused, and the error says what is
wrong with it."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.errors import BundleError
from appliance.operations.bundle import archive, signing
from appliance.operations.bundle.archive import Content
from appliance.operations.bundle.layout import MANIFEST, NEEDED, SIGNATURE, SUMS, top_folder
from appliance.operations.bundle.verify import verify
from tests.install.small_bundle import CREATED, VERSION, make_bundle, make_key
from tests.install.small_bundle import MANIFEST as MADE_UP
from tests.install.small_bundle import changed as other_fields

TOP = top_folder(VERSION)


class Good:
    """One good bundle: its file, its key, its contents."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = make_key(folder)
        self.public = signing.public_half(self.key)
        self.bundle = make_bundle(folder, self.key)
        with self.bundle.open("rb") as file:
            opened = archive.Archive(file, "good")
            self.files = {path: opened.read(path) for path in opened.members}

    def refused(self, bundle: Path, public: bytes | None = None) -> str:
        """What is said; nothing may have been written anywhere near."""
        before = sorted(os.listdir(bundle.parent))
        with pytest.raises(BundleError) as caught:
            verify(bundle, public or self.public)
        assert sorted(os.listdir(bundle.parent)) == before
        assert caught.value.hint
        return caught.value.detail

    def packed(self, target: Path, files: dict[str, bytes]) -> Path:
        archive.write(target, TOP, {path: Content(data) for path, data in files.items()}, CREATED)
        return target

    def signed_anew(self, target: Path, files: dict[str, bytes]) -> Path:
        """Packed after the one with the key has signed it as it is now."""
        sums = "".join(
            f"{Content(data).digest()}  {path}\n"
            for path, data in sorted(files.items())
            if path not in (SUMS, SIGNATURE)
        ).encode()
        made = {SUMS: sums, SIGNATURE: signing.sign(sums, self.key)}
        return self.packed(target, files | made)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    return Good(tmp_path_factory.mktemp("good"))


def spoiled(data: bytes) -> bytes:
    """One byte changed in the middle, or one more where there is none."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else b"\0"


def test_it_is_good_before(good: Good) -> None:
    verified = verify(good.bundle, good.public)
    assert verified.manifest == MADE_UP
    assert set(verified.sizes) == set(good.files)
    assert set(verified.hashes) == set(good.files) - {SUMS, SIGNATURE}


def test_each_file_changed_by_one_byte_is_refused(good: Good, tmp_path: Path) -> None:
    for path, data in good.files.items():
        bundle = good.packed(tmp_path / "x.tar", good.files | {path: spoiled(data)})
        said = good.refused(bundle)
        assert said.startswith(SIGNATURE) if path in (SUMS, SIGNATURE) else path in said


def test_each_file_removed_is_refused(good: Good, tmp_path: Path) -> None:
    for path in good.files:
        left = {name: data for name, data in good.files.items() if name != path}
        assert good.refused(good.packed(tmp_path / "x.tar", left)) == f"x.tar lacks {path}."


@pytest.mark.parametrize("path", ["more", "tree/appliance/more.py", "wheels/a.whl", "SHA256SUMS.2"])
def test_a_file_more_is_refused(good: Good, tmp_path: Path, path: str) -> None:
    said = good.refused(good.packed(tmp_path / "x.tar", good.files | {path: b"import os\n"}))
    assert said == f"x.tar holds a file that was not signed: {path}."


def test_every_byte_of_the_file_counts(good: Good, tmp_path: Path) -> None:
    """Headers, padding and the end among them: nothing in the file is free to be anything."""
    whole = bytearray(good.bundle.read_bytes())
    bundle = tmp_path / "x.tar"
    step = 97  # a prime, so that it falls on every place of a block
    for at in range(0, len(whole), step):
        kept = whole[at]
        whole[at] ^= 0x20
        bundle.write_bytes(whole)
        assert good.refused(bundle)
        whole[at] = kept


def test_a_bundle_cut_off_anywhere_is_refused(good: Good, tmp_path: Path) -> None:
    whole = good.bundle.read_bytes()
    bundle = tmp_path / "x.tar"
    for length in [0, 1, 511, 512, 513, *range(1000, len(whole), 1777), len(whole) - 1]:
        bundle.write_bytes(whole[:length])
        assert "x.tar" in good.refused(bundle)


def test_an_archive_behind_the_archive_is_refused(good: Good, tmp_path: Path) -> None:
    bundle = tmp_path / "x.tar"
    bundle.write_bytes(good.bundle.read_bytes() * 2)
    assert good.refused(bundle) == "x.tar does not end where a bundle ends."


def test_what_is_no_archive_is_refused(good: Good, tmp_path: Path) -> None:
    bundle = tmp_path / "x.tar"
    for data in (b"#!/bin/sh\nexit 0\n" * 99, bytes(20_480)):
        bundle.write_bytes(data)
        assert "x.tar" in good.refused(bundle)
    with pytest.raises(BundleError, match=r"cannot be read: No such file"):
        verify(tmp_path / "none.tar", good.public)


# --- an archive of somebody's own making ----------------------------------------------------------

Change = Callable[[tarfile.TarInfo], tarfile.TarInfo]


def by_hand(good: Good, target: Path, change: Change, **options: int) -> Path:
    """The good contents in a tar that is written as tarfile does, each header changed first."""
    with tarfile.open(target, "w", **{"format": tarfile.GNU_FORMAT} | options) as tar:  # type: ignore[call-overload]
        for path, data in sorted(good.files.items()):
            info = tarfile.TarInfo(f"{TOP}/{path}")
            info.size, info.mtime = len(data), CREATED
            changed = change(info)
            tar.addfile(changed, io.BytesIO(data) if changed.isreg() else None)
    return target


def of(path: str, **fields: object) -> Change:
    """Change the fields of one file's header."""

    def change(info: tarfile.TarInfo) -> tarfile.TarInfo:
        if info.name == f"{TOP}/{path}":
            for name, value in fields.items():
                setattr(info, name, value)
        return info

    return change


def test_such_an_archive_is_good_if_nothing_is_changed(good: Good, tmp_path: Path) -> None:
    bundle = by_hand(good, tmp_path / "x.tar", lambda info: info)
    assert verify(bundle, good.public).manifest == MADE_UP


@pytest.mark.parametrize(
    "name",
    [
        "/etc/cron.d/odd",
        "../odd",
        f"{TOP}/../../odd",
        f"{TOP}/./odd",
        f"{TOP}//odd",
        f"{TOP}/two words",
        f"{TOP}/two\nlines",
        f"{TOP}/-rf",
        f"{TOP}/$(id)",
        f"{TOP}/\N{LATIN SMALL LETTER O WITH DIAERESIS}",
        "other/README.md",
        TOP,
        f"{TOP}/{MANIFEST}",
    ],
)
def test_names_that_lead_elsewhere_or_come_twice_are_refused(
    good: Good, tmp_path: Path, name: str
) -> None:
    bundle = by_hand(good, tmp_path / "x.tar", of("tree/README.md", name=name))
    said = good.refused(bundle)
    assert any(words in said for words in ("may not hold", "beside its folder", "twice"))


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE],
)
def test_what_is_no_file_is_refused(good: Good, tmp_path: Path, kind: bytes) -> None:
    link = of("tree/README.md", type=kind, linkname="/etc/passwd", size=0)
    said = good.refused(by_hand(good, tmp_path / "x.tar", link))
    assert said == f"x.tar holds something that is no file: {TOP}/tree/README.md."


@pytest.mark.parametrize(
    "fields",
    [{"mode": 0o4755}, {"mode": 0o666}, {"uid": 1}, {"uname": "root"}, {"mtime": CREATED + 1}],
    ids=str,
)
def test_headers_say_only_what_they_have_to(
    good: Good, tmp_path: Path, fields: dict[str, object]
) -> None:
    said = good.refused(by_hand(good, tmp_path / "x.tar", of("tree/README.md", **fields)))
    assert said == "x.tar was changed around tree/README.md."


def test_headers_of_another_kind_are_refused(good: Good, tmp_path: Path) -> None:
    """PAX headers can give a file a second name, which one program reads and another does not."""
    more = of("tree/README.md", pax_headers={"comment": "hello"})
    bundle = by_hand(good, tmp_path / "x.tar", more, format=tarfile.PAX_FORMAT)
    assert "x.tar was changed" in good.refused(bundle)


# --- signatures -----------------------------------------------------------------------------------


def test_another_key_is_refused(good: Good, tmp_path: Path) -> None:
    other = signing.public_half(make_key(tmp_path))
    said = good.refused(good.bundle, other)
    assert signing.fingerprint(other) in said


def test_hashes_made_anew_need_the_key(good: Good, tmp_path: Path) -> None:
    files = good.files | {"tree/README.md": b"Another product.\n"}
    again = Good(tmp_path)  # has a key, but not the right one
    assert SIGNATURE in good.refused(again.signed_anew(tmp_path / "x.tar", files))


def test_what_is_no_key_is_said_to_be_none(good: Good, tmp_path: Path) -> None:
    assert "no ed25519 key" in good.refused(good.bundle, b"nothing")
    assert "no ed25519 key" in good.refused(good.bundle, good.key.read_bytes())


@pytest.mark.parametrize(
    "line",
    [
        "0" * 64 + " *tree/kb/empty",
        "0" * 63 + "  tree/kb/empty",
        "nothing",
        "",
    ],
)
def test_lines_of_the_list_that_mean_nothing_are_refused(
    good: Good, tmp_path: Path, line: str
) -> None:
    sums = good.files[SUMS] + f"{line}\n".encode()
    made = {SUMS: sums, SIGNATURE: signing.sign(sums, good.key)}
    assert SUMS in good.refused(good.packed(tmp_path / "x.tar", good.files | made))


def test_a_name_listed_twice_is_refused(good: Good, tmp_path: Path) -> None:
    sums = good.files[SUMS] + good.files[SUMS].splitlines(keepends=True)[0]
    made = {SUMS: sums, SIGNATURE: signing.sign(sums, good.key)}
    assert SUMS in good.refused(good.packed(tmp_path / "x.tar", good.files | made))


@pytest.mark.parametrize("name", [each for each in NEEDED if not each.startswith("SHA256SUMS")])
def test_what_every_bundle_needs_is_missed_even_if_signed(
    good: Good, tmp_path: Path, name: str
) -> None:
    left = {path: data for path, data in good.files.items() if path != name}
    assert good.refused(good.signed_anew(tmp_path / "x.tar", left)) == f"x.tar lacks {name}."


@pytest.mark.parametrize(
    "manifest",
    [b"{}", b"not JSON", b"[]"],
)
def test_a_manifest_that_says_nothing_is_refused(
    good: Good, tmp_path: Path, manifest: bytes
) -> None:
    files = good.files | {MANIFEST: manifest}
    assert MANIFEST in good.refused(good.signed_anew(tmp_path / "x.tar", files))


@pytest.mark.parametrize(
    ("field", "value"), [("name", "other"), ("version", "../../etc"), ("version", "9.8.6")]
)
def test_a_manifest_of_something_else_is_refused(
    good: Good, tmp_path: Path, field: str, value: str
) -> None:
    import msgspec

    encoded = msgspec.json.encode(other_fields(MADE_UP, **{field: value}))
    files = good.files | {MANIFEST: encoded}
    said = good.refused(good.signed_anew(tmp_path / "x.tar", files))
    assert said == f"{MANIFEST} does not describe a bundle of this product."

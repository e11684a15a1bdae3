"""Retention, sealing, what belongs to a desk, and what is told of its settings."""

from __future__ import annotations

import errno
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from appliance.errors import BackupFailed, BackupRefused, InvalidInput
from appliance.llm import weights
from appliance.operations.backup import archive, configuration, contents, folder, sealing, standing
from appliance.operations.backup.manifest import decode, encode
from appliance.operations.backup.standing import Made, Rehearsed
from appliance.settings import Settings, environment, load_settings
from tests.unit.test_backup_archive import manifest_of

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir()
    return load_settings(data_dir=tmp_path / "data")


# --- retention ------------------------------------------------------------------------------------


def put(settings: Settings, at: datetime, *, scheduled: bool = True, place: str = "") -> Path:
    """A backup made at that moment."""
    backups = folder.default_folder(settings)
    backups.mkdir(exist_ok=True)
    source = settings.data_dir / "source"
    source.write_bytes(b"x")
    sources = {"database.sqlite": source}
    manifest = msgspec.structs.replace(
        manifest_of(sources),
        id=f"{at:%Y%m%d%H%M%S}{scheduled}",
        created=at,
        scheduled=scheduled,
        place=place or folder.place(settings),
    )
    path = folder.unused_name(backups, at)
    archive.write(path, manifest, sources)
    return path


def prune(settings: Settings, *, scheduled: bool, newest: int, weekly: int = 0) -> None:
    folder.prune(
        settings,
        folder.default_folder(settings),
        standing.read(settings),
        scheduled=scheduled,
        newest=newest,
        weekly=weekly,
    )


def test_days_and_weeks_are_kept(settings: Settings) -> None:
    made = {day: put(settings, NOON - timedelta(days=day)) for day in range(60)}
    earlier = put(settings, NOON - timedelta(hours=1))
    prune(settings, scheduled=True, newest=7, weekly=4)
    kept = sorted(day for day, path in made.items() if path.exists())
    # 2026-11-24 is a Tuesday: the weeks before end on Sundays, 2, 9 and 16 days ago.
    assert kept == [0, 1, 2, 3, 4, 5, 6, 9, 16]
    assert not earlier.exists(), "the day's last one is kept"


def test_hand_and_clock_leave_each_other_alone(settings: Settings) -> None:
    by_hand = [put(settings, NOON - timedelta(days=d), scheduled=False) for d in range(3)]
    by_clock = [put(settings, NOON - timedelta(days=d, hours=1)) for d in range(3)]
    prune(settings, scheduled=True, newest=1)
    assert [path.exists() for path in by_hand + by_clock] == [True] * 4 + [False] * 2
    prune(settings, scheduled=False, newest=2)
    assert [path.exists() for path in by_hand] == [True, True, False]


def test_other_desks_and_other_files_are_not_touched(settings: Settings) -> None:
    theirs = put(settings, NOON - timedelta(days=400), place="another")
    ours = [put(settings, NOON - timedelta(days=d)) for d in range(2)]
    damaged = theirs.with_name("appliance-backup-20260101T000000Z.tar")
    damaged.write_bytes(b"half")
    foreign = theirs.with_name("holiday.tar")
    foreign.write_bytes(b"sea")
    prune(settings, scheduled=True, newest=1)
    assert [p.exists() for p in (theirs, damaged, foreign, *ours)] == [True] * 4 + [False]
    _, told = folder.listed(theirs.parent, standing.read(settings))
    assert told == [damaged]


def test_the_last_one_known_to_be_sound_stays(settings: Settings) -> None:
    made = [put(settings, NOON - timedelta(days=day)) for day in range(5)]
    for day, sound in ((4, True), (3, True), (2, False)):
        at = NOON - timedelta(days=day)
        name = f"{at:%Y%m%d%H%M%S}True"
        standing.note_rehearsed(settings, Rehearsed(name, str(made[day]), at, sound, [], 1.0))
    prune(settings, scheduled=True, newest=1)
    assert [path.exists() for path in made] == [True, False, False, True, False]


def test_names_of_one_second_do_not_meet(settings: Settings) -> None:
    names = [put(settings, NOON).name for _ in range(3)]
    assert names == [
        "appliance-backup-20261124T120000Z.tar",
        "appliance-backup-20261124T120000Z-2.tar",
        "appliance-backup-20261124T120000Z-3.tar",
    ]


# --- standing -------------------------------------------------------------------------------------


def test_what_happened_last_is_told(settings: Settings) -> None:
    assert standing.read(settings) == standing.Standing()
    standing.note_failed(settings, "The disk is full.")
    assert standing.read(settings).failed is not None
    made = Made("a", "/backups/a.tar", NOON, 10, 0.5, True)
    standing.note_made(settings, made)
    found = standing.read(settings)
    assert (found.last, found.failed, found.rehearsed) == (made, None, None)
    for number in range(standing.REHEARSALS_KEPT + 5):
        at = NOON + timedelta(days=number)
        standing.note_rehearsed(settings, Rehearsed("a", "f", at, number < 3, ["x"], 1.0))
    found = standing.read(settings)
    assert len(found.rehearsals) == standing.REHEARSALS_KEPT
    assert found.rehearsed is not None
    assert not found.rehearsed.sound
    (settings.data_dir / contents.STATE_FILE).write_text("half")
    assert standing.read(settings) == standing.Standing()


def test_a_note_that_cannot_be_written_leaves_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights.os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        standing.note_made(settings, Made("a", "/backups/a.tar", NOON, 10, 0.5, True))
    assert list(settings.data_dir.iterdir()) == []


def test_a_time_without_its_zone_is_refused(settings: Settings) -> None:
    whole = put(settings, NOON)
    with archive.Archive.open(whole) as opened:
        naive = msgspec.structs.replace(opened.manifest, created=NOON.replace(tzinfo=None))
    with pytest.raises(BackupRefused, match="zone"):
        decode(encode(naive))


# --- sealing --------------------------------------------------------------------------------------


def test_secrets_open_with_their_passphrase_and_their_backup_only() -> None:
    files = {"secrets/webhooks": bytes(range(32)), "tls-key.pem": b"-----BEGIN"}
    sealed = sealing.seal(files, PASSPHRASE, "one")
    assert b"BEGIN" not in sealed
    assert sealing.seal(files, PASSPHRASE, "one") != sealed
    assert sealing.unseal(sealed, PASSPHRASE, "one") == files
    for wrong in (
        (sealed, "another passphrase", "one"),
        (sealed, PASSPHRASE, "two"),
        (sealed[:-9] + b"AAAAAA" + sealed[-3:], PASSPHRASE, "one"),
        (b"{}", PASSPHRASE, "one"),
    ):
        with pytest.raises(BackupRefused):
            sealing.unseal(*wrong)


def test_a_passphrase_comes_from_a_file_and_is_long(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text(f"{PASSPHRASE}\r\nanother line\n")
    assert sealing.read_passphrase(str(file)) == PASSPHRASE
    for bad in (b"", b"short\n", b"\xff\xfe" * 20):
        file.write_bytes(bad)
        with pytest.raises(InvalidInput):
            sealing.read_passphrase(str(file))
    with pytest.raises(InvalidInput):
        sealing.read_passphrase(str(tmp_path / "nowhere"))


# --- what belongs to a desk -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "fate"),
    [
        ("heads/learned-0012.npz", "saved"),
        ("heads/learning.json", "saved"),
        ("engine/active.json", "saved"),
        ("secrets/webhooks", "secret"),
        ("heads/vectors.npz", "rebuilt"),
        ("index/index.faiss", "rebuilt"),
        ("weights/smollm2-135m.tuning.json", "rebuilt"),
        ("weights/registry.json", "elsewhere"),
        ("backups/appliance-backup-20261124T120000Z.tar", "elsewhere"),
        ("before-restore-20261124T120000Z/appliance.db", "elsewhere"),
        ("queue.db-wal", "passing"),
        ("heads/learning.lock", "passing"),
        ("secrets/.webhooks.x7", "passing"),
        ("appliance.db-shm", "passing"),
        ("notes.txt", None),
        ("secrets/deep/key", None),
    ],
)
def test_every_file_has_a_fate(path: str, fate: str | None) -> None:
    assert contents.fate(path) == fate


def test_links_are_not_followed(settings: Settings) -> None:
    secrets = settings.data_dir / "secrets"
    secrets.mkdir()
    (secrets / "webhooks").symlink_to("/etc/passwd")
    assert list(contents.files(settings.data_dir, "secret")) == []


def test_a_folder_that_vanishes_is_no_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("heads/learned-0001.npz", "index/index.json"):
        (settings.data_dir / name).parent.mkdir()
        (settings.data_dir / name).write_text("x")
    scan = os.scandir

    def vanishing(path: str | Path) -> object:
        if str(path).endswith("/index"):
            shutil.rmtree(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    found = list(contents.files(settings.data_dir, "saved"))
    assert [name for name, _ in found] == ["heads/learned-0001.npz"]


# --- settings -------------------------------------------------------------------------------------


def test_settings_are_told_without_passwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "appliance.toml"
    config.write_text(
        'desk_name = "Rail"  # ours\n'
        'database_url = "postgresql+psycopg://desk:s3cret-word@db/desk"\n'
        'vllm_extra_args = ["--api-key=hidden-word"]\n'
    )
    monkeypatch.setenv("APPLIANCE_CONFIG", str(config))
    settings = load_settings(data_dir=tmp_path)
    told = b"".join(configuration.told_files(settings).values())
    assert b"s3cret-word" not in told
    assert b"hidden-word" not in told
    assert b'desk_name = "Rail"  # ours' in told
    assert b"# database_url" in told
    assert configuration.secret_files(settings)["appliance.toml"] == config.read_bytes()


def test_secrets_that_only_root_can_read_are_not_left_out_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for name in ("tls.crt", "tls.key", "database.password"):
        (credentials / name).write_text(name)
    monkeypatch.setattr(environment, "_CREDENTIALS", credentials)
    monkeypatch.setattr(os, "access", lambda path, mode: path != credentials)
    closed = load_settings(data_dir=tmp_path / "data")
    with pytest.raises(BackupFailed) as failed:
        configuration.secret_files(closed)
    assert "systemd-run" in failed.value.hint
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    handed = configuration.secret_files(load_settings(data_dir=tmp_path / "data"))
    assert handed["tls-key.pem"] == b"tls.key"
    assert handed["database-password"] == b"database.password"


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    then = load_settings(data_dir=tmp_path, desk_name="Rail", port=9_000)
    described = configuration.told_files(then)["configuration.json"]
    now = load_settings(data_dir=tmp_path / "other", languages=["de"])
    assert configuration.differing(now, described) == ["desk_name", "languages"]

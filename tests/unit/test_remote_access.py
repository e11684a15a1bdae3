"""Who may be called, with which key, and what a service's headers and the settings mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import SettingsError
from appliance.llm import remote_access
from appliance.llm.rate_limits import RateLimits, duration
from appliance.llm.remote import connect
from appliance.llm.scripted import ScriptedModel
from appliance.settings import Settings, load_settings
from tests.groq_server import KEY
from tests.unit.test_remote import key_file

__all__ = ["key_file"]  # the fixture

# --- what headers say -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7.66s", 7.66),
        ("2m59.56s", 179.56),
        ("1h2m", 3720.0),
        ("1d", 86400.0),
        ("140ms", 0.14),
        ("0s", 0.0),
        ("", None),
        ("7", None),
        ("soon", None),
        ("7s later", None),
        ("-7s", None),
        ("1e9s", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59_999))
def test_durations_add_up(hours: int, minutes: int, milliseconds: int) -> None:
    text = f"{hours}h{minutes}m{milliseconds / 1000:.3f}s"
    assert duration(text) == pytest.approx(hours * 3600 + minutes * 60 + milliseconds / 1000)


def test_a_limit_holds_until_its_time_is_over_and_never_shrinks() -> None:
    now = [100.0]
    limits = RateLimits(lambda: now[0])
    assert limits.seconds_closed == 0
    limits.hear(200, {"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "9s"})
    limits.hear(200, {"x-ratelimit-remaining-requests": "0"})
    limits.hear(200, {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"})
    assert limits.seconds_closed == 0
    limits.hear(429, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9s"})
    limits.hear(429, {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2s"})
    assert limits.seconds_closed == 9
    now[0] = 110.0
    assert limits.seconds_closed == 0


# --- address and key ------------------------------------------------------------------------------


def access(key_file: Path | None, url: str = "https://api.example/openai") -> Settings:
    return Settings(remote_enabled=True, remote_url=url, remote_key_file=key_file)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://api.groq.com/openai", "api.groq.com"),
        ("https://api.example:8443/openai/", "api.example:8443"),
        ("http://127.0.0.1:9/openai", "127.0.0.1:9"),
        ("http://[::1]:9", "::1:9"),
        ("http://localhost:9", "localhost:9"),
    ],
)
def test_addresses_that_may_be_called(key_file: Path, url: str, host: str) -> None:
    found = remote_access.admitted(access(key_file, url))
    assert (found.host, found.url) == (host, url.rstrip("/"))
    assert found.headers() == {"authorization": f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("http://api.groq.com/openai", "https://"),
        ("http://10.0.0.7/openai", "https://"),
        ("http://127.0.0.1.example/", "https://"),
        ("ftp://api.groq.com", "https://"),
        ("https://", "https://"),
        ("api.groq.com", "https://"),
        ("https://user:word@api.groq.com", "https://"),
        ("https://api.groq.com:x/", "https://"),
        ("https://api.groq.com/openai/v1", "/v1"),
        ("https://api.groq.com/openai?key=1", "/v1"),
        ("", "https://"),
    ],
)
def test_addresses_that_are_refused(key_file: Path, url: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        remote_access.admitted(access(key_file, url))
    assert "remote.url" in caught.value.detail
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (b"", 0o600),
        (b"\n \n", 0o600),
        (b"two words", 0o600),
        (b"one\ntwo", 0o600),
        ("schlüssel".encode(), 0o600),
        (b"x" * 4097, 0o600),
        (KEY.encode(), 0o640),
        (KEY.encode(), 0o604),
        (KEY.encode(), 0o620),
    ],
)
def test_key_files_that_are_refused(key_file: Path, content: bytes, mode: int) -> None:
    key_file.write_bytes(content)
    key_file.chmod(mode)
    with pytest.raises(SettingsError) as caught:
        remote_access.admitted(access(key_file))
    assert str(key_file) in caught.value.detail
    told = caught.value.detail + caught.value.hint
    told = told.replace(str(key_file), "")
    assert not re.search("schl|words|two|xxx|gsk_", told)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_key_file_is_read(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    assert remote_access.read_key(key_file) == KEY


def test_a_key_file_has_to_be_named_and_there(tmp_path: Path) -> None:
    for file in (None, tmp_path / "nothing", tmp_path):
        with pytest.raises(SettingsError) as caught:
            remote_access.admitted(access(file))
        assert "remote.key_file" in caught.value.hint


async def unheard(action: str, target: str, details: Mapping[str, Any]) -> None:
    """An audit log that nothing should be written to."""
    raise AssertionError(action)


def test_what_is_not_enabled_is_refused_whatever_else_is_set(key_file: Path) -> None:
    settings = Settings(remote_key_file=key_file)
    assert settings.remote_enabled is False
    with pytest.raises(SettingsError, match="No remote backend"):
        connect(settings, ScriptedModel(), unheard)


# --- settings -------------------------------------------------------------------------------------


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "appliance.toml"
    monkeypatch.setenv("APPLIANCE_CONFIG", str(path))
    return path


def test_the_table_of_the_file_and_the_variables_mean_the_same(
    toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml.write_text(
        '[remote]\nenabled = true\nmodel = "far"\nkey_file = "~/k"\ntimeout = 3\nreasoning = ""\n'
    )
    found = load_settings(data_dir=tmp_path)
    assert (found.remote_enabled, found.remote_model, found.remote_timeout) == (True, "far", 3.0)
    assert found.remote_key_file == Path("~/k").expanduser()
    monkeypatch.setenv("APPLIANCE_REMOTE_ENABLED", "false")
    monkeypatch.setenv("APPLIANCE_REMOTE_MODEL", "farther")
    found = load_settings(data_dir=tmp_path)
    assert (found.remote_enabled, found.remote_model, found.remote_timeout) == (
        False,
        "farther",
        3.0,
    )


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[remote]\ncolour = 1\n", "remote_colour"),
        ("[remote]\nenabled = 7\n", "remote_enabled"),
        ("[remote]\ntimeout = 0\n", "remote_timeout"),
        ('[remote]\nreasoning = "hard"\n', "remote_reasoning"),
        ("remote = true\n", "remote"),
        ("remote_enabled = false\n[remote]\nenabled = true\n", "twice"),
        ("[remote.more]\nenabled = true\n", "remote_more"),
    ],
)
def test_a_wrong_line_of_the_table_is_named(toml: Path, content: str, named: str) -> None:
    toml.write_text(content)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert named in caught.value.detail

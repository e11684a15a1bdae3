"""What the LAN port speaks: the real server over TLS, and what it refuses to start as."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from appliance.errors import SettingsError
from appliance.operations.tls import context, examine, require_safe_bind
from appliance.settings import Settings
from appliance.storage import migrate
from tests.appliance_process import COMMAND, clean_environment, free_port, until

pytestmark = pytest.mark.loopback

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


Make = Callable[..., Pair]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes self-signed certificates for 127.0.0.1."""

    def making(
        name: str = "desk",
        *,
        begins: timedelta = -DAY,
        ends: timedelta = DAY,
        passphrase: bytes | None = None,
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(key, SHA256())
        )
        made = Pair(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
        made.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        return made

    return making


def settings(tmp_path: Path, **given: object) -> Settings:
    return Settings(data_dir=tmp_path / "data", **given)


# --- the files ------------------------------------------------------------------------------------


def test_without_a_certificate_there_is_no_tls(tmp_path: Path) -> None:
    assert context(settings(tmp_path)) is None


def test_a_certificate_and_its_key_make_a_server(tmp_path: Path, make: Make) -> None:
    pair = make()
    made = context(settings(tmp_path, tls_cert_file=pair.certificate, tls_key_file=pair.key))
    assert made is not None
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2
    seen = examine(made, pair.certificate)
    assert seen.problem is None
    assert seen.not_after is not None
    assert timedelta(0) < seen.not_after - datetime.now(UTC) <= DAY


@pytest.mark.parametrize(
    ("begins", "ends", "problem"),
    [(-2 * DAY, -DAY, "expired"), (DAY, 2 * DAY, "not yet valid")],
)
def test_dates_are_looked_at(
    begins: timedelta, ends: timedelta, problem: str, tmp_path: Path, make: Make
) -> None:
    pair = make(begins=begins, ends=ends)
    made = context(settings(tmp_path, tls_cert_file=pair.certificate, tls_key_file=pair.key))
    assert made is not None
    assert problem in str(examine(made, pair.certificate).problem)


def test_files_that_do_not_serve(tmp_path: Path, make: Make) -> None:
    pair, other = make(), make("other")
    locked = make("locked", passphrase=b"secret")
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    broken = tmp_path / "broken"
    broken.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    cases = {
        "tls_key_file is missing": (pair.certificate, None),
        "tls_cert_file is missing": (None, pair.key),
        "cannot be read: No such file": (tmp_path / "nowhere", pair.key),
        "cannot be read: Is a directory": (pair.certificate, tmp_path),
        "tls_cert_file.* no such file in PEM": (empty, pair.key),
        "tls_key_file.* no such file in PEM": (pair.certificate, pair.certificate),
        "is not the key of": (pair.certificate, other.key),
        "encrypted": (locked.certificate, locked.key),
        "cannot be used": (broken, pair.key),
    }
    for said, (certificate, key) in cases.items():
        with pytest.raises(SettingsError, match=said):
            context(settings(tmp_path, tls_cert_file=certificate, tls_key_file=key))


# --- where it listens -----------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1"])
def test_on_this_machine_plain_http_is_fine(host: str, tmp_path: Path) -> None:
    require_safe_bind(settings(tmp_path, host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "::ffff:0.0.0.0"])
def test_other_machines_are_not_answered_in_plain_http(
    host: str, tmp_path: Path, make: Make
) -> None:
    with pytest.raises(SettingsError, match="unencrypted") as refused:
        require_safe_bind(settings(tmp_path, host=host))
    assert "allow_plain_http" in refused.value.hint
    require_safe_bind(settings(tmp_path, host=host, allow_plain_http=True))
    pair = make()
    require_safe_bind(
        settings(tmp_path, host=host, tls_cert_file=pair.certificate, tls_key_file=pair.key)
    )


# --- the real server ------------------------------------------------------------------------------


@dataclass
class Running:
    """``appliance api`` in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    environment: dict[str, str]

    def listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def cli(self, *arguments: str) -> dict[str, str]:
        done = subprocess.run(
            [*COMMAND, *arguments, "--json"], env=self.environment, capture_output=True, check=True
        )
        found: dict[str, str] = json.loads(done.stdout)
        return found


@contextmanager
def started(tmp_path: Path, **variables: str) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="tls-", dir="/tmp") as sockets:
        port = free_port()
        environment = clean_environment(
            APPLIANCE_DATA_DIR=str(tmp_path / "data"),
            APPLIANCE_RUNTIME_DIR=sockets,
            APPLIANCE_PORT=str(port),
            **variables,
        )
        (tmp_path / "data").mkdir(mode=0o700)
        migrate.upgrade(f"sqlite:///{tmp_path / 'data' / 'appliance.db'}")
        log = tmp_path / "log"
        with log.open("wb") as file:
            process = subprocess.Popen([*COMMAND, "api"], env=environment, stdout=file, stderr=file)
        try:
            yield Running(process, port, log, environment)
        finally:
            process.kill()
            process.wait()


def test_the_server_speaks_tls_and_nothing_else(tmp_path: Path, make: Make) -> None:
    pair = make()
    files = {
        "APPLIANCE_TLS_CERT_FILE": str(pair.certificate),
        "APPLIANCE_TLS_KEY_FILE": str(pair.key),
    }
    with started(tmp_path, **files) as running:
        until(running.listens, "the server listens")
        base = f"https://127.0.0.1:{running.port}"
        trust = ssl.create_default_context(cafile=pair.certificate)
        with httpx.Client(base_url=base, verify=trust, trust_env=False, timeout=60) as client:
            alive = client.get("/api/v1/health")
            assert alive.status_code == 200
            assert alive.headers["strict-transport-security"] == "max-age=31536000"
            visitor = client.get("/").headers["set-cookie"].lower()
            assert "secure" in visitor.split("; ")

            made = running.cli("accounts", "create", "ada", "--role", "admin", "--generate")
            answer = client.post(
                "/api/v1/login",
                json={"username": "ada", "password": made["password"]},
                headers={"X-Requested-With": "appliance-staff"},
            )
            assert answer.status_code == 200, answer.text
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith("__Host-appliance_session_")
            assert {"secure", "httponly", "path=/", "samesite=strict"} <= set(
                cookie.lower().split("; ")
            )
            client.headers["X-Requested-With"] = "appliance-staff"
            assert client.get("/api/v1/account").json()["username"] == "ada"

        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{running.port}/api/v1/health", trust_env=False)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection(("127.0.0.1", running.port)) as plain,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            old.wrap_socket(plain)


@pytest.mark.parametrize("command", ["api", "up"])
def test_an_unsafe_start_is_refused_with_what_to_do(command: str, tmp_path: Path) -> None:
    environment = clean_environment(
        APPLIANCE_DATA_DIR=str(tmp_path / "data"),
        APPLIANCE_HOST="0.0.0.0",
        APPLIANCE_PORT=str(free_port()),
    )
    done = subprocess.run(
        [*COMMAND, command], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "error: 0.0.0.0 can be reached from other machines" in done.stderr
    assert "hint: Set tls_cert_file and tls_key_file" in done.stderr

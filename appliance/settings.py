"""One ``Settings`` object: TOML file, then ``APPLIANCE_*`` environment. The only reader of the
environment.

Every field is a setting, its upper-case name after ``APPLIANCE_`` is its variable, and its default
is safe with no network. README's table is checked against the fields.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import re
import shlex
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from appliance.errors import SettingsError

HOME = Path(__file__).resolve().parent.parent
"""Where the product's own files lie: models/, kb/, migrations/ beside the package."""


def installed_under(home: Path) -> Path | None:
    """The root that an installation was made under (``/``, or ``install.sh --root``'s folder), or
    None for a checkout, which keeps its state beside itself.

    A release lies at ``ROOT/opt/appliance/releases/VERSION``. One rule of paths for every root:
    what works under a staging folder is what works under ``/``.
    """
    if home.parent.parts[-3:] != ("opt", "appliance", "releases"):
        return None
    return home.parents[3]


ROOT = installed_under(HOME)
"""The root of this installation, or None in a checkout."""

_DEFAULT_CONFIG = (ROOT or Path("/")) / "etc/appliance/appliance.toml"

_CREDENTIALS = ROOT / "etc/appliance/credentials" if ROOT else None
"""Where root keeps what the units hand to their processes."""

CREDENTIALS = {
    "tls_cert_file": "tls.crt",
    "tls_key_file": "tls.key",
    "remote_key_file": "remote.key",
    "database_password_file": "database.password",
}
"""Settings that name a file, and the credential that is it where they are not set."""

QUEUE_SCHEMES = ("redis", "rediss", "valkey", "valkeys", "postgresql")

AnswerMode = Literal["drafted", "quoted", "curated"]

SOCKET_PATH_MAX = 107
"""Longest path a Unix socket address can hold on Linux, in bytes."""


class _TomlFile(TomlConfigSettingsSource):
    """The TOML file, in which the settings of the remote backend may stand in a table."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        values = super()._read_file(file_path)
        table = values.get("remote")
        if isinstance(table, dict):
            del values["remote"]
            named = {f"remote_{name}": value for name, value in table.items()}
            if twice := sorted(named.keys() & values.keys()):
                raise SettingsError(f"{file_path} sets {twice[0]} twice.")
            values |= named
        return values


class Settings(BaseSettings):
    """What an administrator can change. Paths are absolute after validation."""

    model_config = SettingsConfigDict(
        env_prefix="APPLIANCE_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    data_dir: Path = Field(
        default=ROOT / "var/lib/appliance" if ROOT else HOME / "var",
        description="Folder that holds all state: database, index, weights, secrets.",
    )
    runtime_dir: Path | None = Field(
        default=None,
        description="Folder of Unix sockets; by default a short private one derived from data_dir.",
    )
    host: str = Field(default="127.0.0.1", description="Address the API binds to.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port of the API and the pages.")
    tls_cert_file: Path | None = Field(
        default=None,
        description="Certificate of the API and the pages, PEM, with its chain; then it is https.",
    )
    tls_key_file: Path | None = Field(
        default=None, description="Private key of that certificate, PEM, without a passphrase."
    )
    allow_plain_http: bool = Field(
        default=False,
        description="Whether other machines may be answered without TLS, as behind a proxy.",
    )
    database_url: str = Field(
        default="",
        description="SQLAlchemy URL; empty means SQLite in data_dir. PostgreSQL: postgresql+psycopg://...",
    )
    database_password_file: Path | None = Field(
        default=None,
        description="File that holds the database's password, for a URL that has none.",
    )
    model: str = Field(
        default="",
        description="Catalog name of the model; empty means what 'appliance models use' chose.",
    )
    embeddings_dir: Path | None = Field(
        default=None,
        description="Folder of a sentence-transformers model; empty means the packaged MiniLM.",
    )
    desk_name: str = Field(
        default="Northleaf Support", max_length=80, description="Title of the chat page."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is logged."
    )
    max_body_bytes: int = Field(
        default=262_144, ge=16_384, description="Largest request body accepted, in bytes."
    )
    request_seconds: float = Field(
        default=30.0, gt=0, description="Longest a request may take to arrive, in seconds."
    )
    query_limit: int = Field(
        default=128, ge=1, description="Queries under way in one process; more are told to wait."
    )
    idempotency_hours: float = Field(
        default=24.0, gt=0, description="How long a repeated Idempotency-Key gets the same answer."
    )
    disk_reserve_mib: int = Field(
        default=256, ge=0, description="Free space below which the appliance is read-only, in MiB."
    )
    backup_dir: Path | None = Field(
        default=None,
        description="Folder of backups, best on another disk; empty means backups in data_dir.",
    )
    backup_days: int = Field(
        default=7, ge=1, description="Days of which the last scheduled backup is kept."
    )
    backup_weeks: int = Field(
        default=4, ge=0, description="Weeks of which the last scheduled backup is kept besides."
    )
    metrics_access: Literal["local", "key"] = Field(
        default="local",
        description="Who reads /metrics: local, this machine or an admin key; key, a key always.",
    )
    backend: Literal["llamacpp", "vllm"] = Field(
        default="llamacpp",
        description="What runs the model: llamacpp, the appliance's own engine, or vllm, for GPUs.",
    )
    vllm_url: str = Field(
        default="http://127.0.0.1:8000",
        description="Where vLLM listens; on this machine only.",
    )
    vllm_model_dir: Path | None = Field(
        default=None,
        description="Folder of the model for vLLM, as Hugging Face lays it out, in safetensors.",
    )
    vllm_python: Path | None = Field(
        default=None,
        description="Python of the environment with vLLM in it; empty means the appliance's own.",
    )
    vllm_extra_args: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="Tuning options for vLLM, such as --tensor-parallel-size=2; in TOML a list.",
    )
    engine_threads: int = Field(
        default=0, ge=0, description="Threads of the model; 0 means as many as serve it best here."
    )
    engine_streams: int = Field(
        default=16, ge=1, le=64, description="Most answers the model writes side by side."
    )
    engine_cache_mib: int = Field(
        default=256, ge=0, description="Memory for prompts kept so as not to be read again, in MiB."
    )
    engine_queue: int = Field(
        default=16, ge=1, description="Requests that may wait for the model before 429."
    )
    engine_timeout: float = Field(
        default=30.0, gt=0, description="Longest one model call may take, in seconds."
    )
    engine_patience: float = Field(
        default=3.0,
        ge=0,
        description="Longest a query waits for a full model before articles answer, in seconds.",
    )
    answer_mode: AnswerMode = Field(
        default="drafted",
        description="How answers are made: drafted and judged, quoted sentences, or curated.",
    )
    languages: Annotated[list[str], NoDecode] = Field(
        default=["en"],
        description="Languages the desk reads, such as en de; others go to a person. any: all.",
    )
    webhook_allow: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="Where webhooks may go: hosts and networks, as 10.2.0.0/16; empty: nowhere.",
    )
    webhook_timeout: float = Field(
        default=20.0, ge=1, le=60, description="Longest one webhook attempt may take, in seconds."
    )
    webhook_retry_seconds: Annotated[list[int], NoDecode] = Field(
        default=[5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400],
        max_length=50,
        description="Pauses between the attempts of a webhook delivery, in seconds.",
    )
    webhook_disable_days: float = Field(
        default=5.0, gt=0, description="Days of failures only that switch a webhook off."
    )
    webhook_keep_days: int = Field(
        default=30, ge=1, description="Days for which finished webhook deliveries are kept."
    )
    queue_url: str = Field(
        default="",
        description="Queue that wakes the worker: redis://..., postgresql://...; empty: a file.",
    )
    visitor_queries_per_minute: int = Field(
        default=20, ge=1, description="Questions one visitor of the chat page may send a minute."
    )
    key_requests_per_minute: int = Field(
        default=3_000, ge=1, description="Requests one key or signed-in person may send a minute."
    )
    session_idle_minutes: int = Field(
        default=30, ge=1, description="Minutes after which an unused sign-in ends."
    )
    session_hours: int = Field(
        default=12, ge=1, le=720, description="Hours after which any sign-in ends."
    )
    remote_enabled: bool = Field(
        default=False,
        description="Whether a remote model may be asked; customers' words leave then.",
    )
    remote_url: str = Field(
        default="https://api.groq.com/openai",
        description="Root of the remote OpenAI-compatible API, without /v1; https, or loopback.",
    )
    remote_model: str = Field(
        default="openai/gpt-oss-120b",
        description="Name of the remote model, as its server knows it.",
    )
    remote_key_file: Path | None = Field(
        default=None,
        description="File that holds the remote API's key, readable by its owner only.",
    )
    remote_timeout: float = Field(
        default=20.0,
        gt=0,
        description="Longest a remote call may take, retries included, in seconds.",
    )
    remote_reasoning: Literal["", "low", "medium", "high"] = Field(
        default="low",
        description="How long the remote model may think first; empty for one that does not.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order: arguments, environment, TOML file. No .env file: a stray one must not decide."""
        config = config_file()
        if config is None:
            return (init_settings, env_settings)
        return (init_settings, env_settings, _TomlFile(settings_cls, config))

    @model_validator(mode="before")
    @classmethod
    def _absolute(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name, named in CREDENTIALS.items():
            if not values.get(name) and (found := credential(named)):
                values[name] = found
        for name in (
            "data_dir",
            "runtime_dir",
            "backup_dir",
            "embeddings_dir",
            "vllm_model_dir",
            "vllm_python",
            "remote_key_file",
            "database_password_file",
            "tls_cert_file",
            "tls_key_file",
        ):
            if values.get(name):
                path = Path(values[name]).expanduser()
                # The data folder names the sockets, so that every way to write it has to mean the
                # same. An environment's Python is a link, and only by its own name that Python; a
                # certificate is renewed by moving the link to it.
                linked = name in ("runtime_dir", "vllm_python", "tls_cert_file", "tls_key_file")
                values[name] = path.absolute() if linked else path.resolve()
        return values

    @field_validator("vllm_extra_args", mode="before")
    @classmethod
    def _words(cls, given: Any) -> Any:
        return shlex.split(given) if isinstance(given, str) else given

    @field_validator("webhook_allow", mode="before")
    @classmethod
    def _receivers(cls, given: Any) -> Any:
        return given.replace(",", " ").split() if isinstance(given, str) else given

    @field_validator("languages", mode="before")
    @classmethod
    def _codes(cls, given: Any) -> Any:
        codes = given.replace(",", " ").split() if isinstance(given, str) else given
        if codes == ["any"]:
            return []
        if isinstance(codes, list) and not all(
            isinstance(code, str) and re.fullmatch("[a-z]{2}", code) for code in codes
        ):
            raise ValueError("Languages are ISO 639-1 codes of two letters, such as en de.")
        return codes

    @field_validator("webhook_retry_seconds", mode="before")
    @classmethod
    def _pauses(cls, given: Any) -> Any:
        return given.replace(",", " ").split() if isinstance(given, str) else given

    @field_validator("webhook_retry_seconds")
    @classmethod
    def _forward(cls, pauses: list[int]) -> list[int]:
        if any(pause < 1 for pause in pauses):
            raise ValueError("A pause is at least one second.")
        return pauses

    @field_validator("queue_url")
    @classmethod
    def _queue(cls, url: str) -> str:
        if url and urlsplit(url).scheme not in QUEUE_SCHEMES:
            raise ValueError(f"A queue is one of {', '.join(QUEUE_SCHEMES)}.")
        return url

    @field_validator("vllm_url")
    @classmethod
    def _loopback(cls, url: str) -> str:
        # vLLM knows no keys and customers' words go there: by an address, so that no name service
        # decides where it is.
        with contextlib.suppress(ValueError):
            parts = urlsplit(url)
            if (
                ipaddress.ip_address(parts.hostname or "").is_loopback
                and parts.port
                and url.rstrip("/") == f"http://{parts.netloc}"
                and "@" not in parts.netloc
            ):
                return url.rstrip("/")
        raise ValueError("vLLM has to be on this machine: http://127.0.0.1:PORT")

    @property
    def resolved_database_url(self) -> str:
        """The URL in force.

        :raises SettingsError: the password's file cannot be read.
        """
        if not self.database_url:
            return f"sqlite:///{self.data_dir / 'appliance.db'}"
        scheme, mark, rest = self.database_url.partition("://")
        user, at, host = rest.partition("@")
        if not at or ":" in user or self.database_password_file is None:
            return self.database_url
        try:
            password = self.database_password_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"database_password_file: {self.database_password_file} cannot be read."
            ) from error
        return f"{scheme}{mark}{user}:{quote(password, safe='')}@{host}"

    @property
    def sockets(self) -> Path:
        """The folder of Unix sockets, not created here."""
        if self.runtime_dir is not None:
            return self.runtime_dir
        if Path("/") == ROOT:
            return Path("/run/appliance")
        # Derived from the data folder so that every process of one appliance, whatever shell
        # started it, finds the same sockets, and two appliances never share one.
        digest = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:10]
        return Path(f"/tmp/appliance-{os.getuid()}-{digest}")  # noqa: S108 - checked by ensure_folders

    @property
    def engine_socket(self) -> Path:
        """What clients of the engine connect to; a link to the engine in charge."""
        return self.sockets / "engine.sock"

    @property
    def api_socket(self) -> Path:
        """The operator's own way into the API: who can open this file is the administrator."""
        return self.sockets / "api.sock"


def config_file() -> Path | None:
    """The TOML file in force, or None.

    :raises SettingsError: ``APPLIANCE_CONFIG`` names a file that does not exist.
    """
    named = os.environ.get("APPLIANCE_CONFIG")
    if named:
        path = Path(named).expanduser().absolute()
        if not path.is_file():
            raise SettingsError(f"APPLIANCE_CONFIG names {path}, which is not a file.")
        return path
    return _DEFAULT_CONFIG if ROOT and _DEFAULT_CONFIG.is_file() else None


def credential(name: str) -> Path | None:
    """A secret that the service manager handed to this process, or, for a command of root's, the
    file it would be handed; None where there is none, or a line with nothing in it."""
    given = os.environ.get("CREDENTIALS_DIRECTORY")
    folder = Path(given) if given else _CREDENTIALS
    if folder is None:
        return None
    try:
        return folder / name if (folder / name).read_bytes().strip() else None
    except OSError:
        return None


def closed_credentials() -> Path | None:
    """Root's folder of credentials where this process was handed none and may not look into it:
    which of them there are cannot be told. None everywhere else."""
    folder = _CREDENTIALS
    if folder is None or os.environ.get("CREDENTIALS_DIRECTORY") or not folder.is_dir():
        return None
    return None if os.access(folder, os.R_OK | os.X_OK) else folder


def handed_over(file: Path) -> bool:
    """Whether only this process can reach a file, whatever its mode says: a credential's may show
    the mask of an access list."""
    return os.environ.get("CREDENTIALS_DIRECTORY") == str(file.parent)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; ``overrides`` win over file and environment.

    :raises SettingsError: with the name of the first field that is wrong.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        said = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{where}: {said}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"{config_file()} is not valid TOML: {error}") from error


def unknown_variables() -> list[str]:
    """Names in the environment that look like settings and are none: logged at start, since a typo
    must show."""
    known = {f"APPLIANCE_{name.upper()}" for name in Settings.model_fields}
    known |= {"APPLIANCE_CONFIG", "APPLIANCE_TORCH_INDEX"}
    return sorted(
        name for name in os.environ if name.startswith("APPLIANCE_") and name not in known
    )


def ensure_folders(settings: Settings) -> None:
    """Create the data and socket folders, private to this user.

    :raises SettingsError: when a folder cannot be made, belongs to somebody else (a planted folder
        in a shared temporary directory), or makes socket paths too long for the kernel.
    """
    for folder in (settings.data_dir, settings.sockets):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = folder.stat()
        except OSError as error:
            raise SettingsError(f"{folder} cannot be used: {error.strerror}.") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SettingsError(f"{folder} is not writable for this user.")
        if folder == settings.sockets and (
            folder.is_symlink()
            or owner.st_uid not in (os.getuid(), 0)
            or stat.S_IMODE(owner.st_mode) & 0o022
        ):
            raise SettingsError(
                f"{folder} could be changed by other users.",
                hint="Remove it, or name a private folder with APPLIANCE_RUNTIME_DIR.",
            )
    longest = os.fsencode(settings.sockets / "engine-0000000000.sock")
    if len(longest) > SOCKET_PATH_MAX:
        raise SettingsError(
            f"{settings.sockets} is too long for a socket path.",
            hint="Name a shorter folder with APPLIANCE_RUNTIME_DIR.",
        )


OFFLINE_ENVIRONMENT = {
    # Libraries that would reach for a hub, a tracer or a version check when asked nothing.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    # The version that is pinned has no telemetry; the ones after it do.
    "ORT_DISABLE_TELEMETRY": "1",
    "LANGSMITH_TRACING": "false",
    "LANGSMITH_TRACING_V2": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "TOKENIZERS_PARALLELISM": "false",
}


def enforce_offline() -> None:
    """Force every library's own switch for network use to off, whatever the shell exported.

    Called first thing by each process, before the libraries are imported, because they read these
    once.
    """
    os.environ.update(OFFLINE_ENVIRONMENT)


def notify_socket() -> str | None:
    """Where the service manager listens; systemd's variable, not a setting."""
    return os.environ.get("NOTIFY_SOCKET") or None


def torch_index() -> str | None:
    """A package index that has a CPU build of PyTorch, for building bundles; install.sh reads it,
    too."""
    return os.environ.get("APPLIANCE_TORCH_INDEX") or None


def cache_folder() -> Path:
    """Where bundles' builder keeps what it can make again, by the XDG rules."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "smartsupport-appliance"


def compiler_environment(programs: Path) -> dict[str, str]:
    """The environment in which a bundle's code is compiled: ``programs`` come first, and no flags
    of the shell's reach the compiler, or two builds would differ."""
    flags = {"CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CMAKE_ARGS", "CC", "CXX"}
    kept = {name: value for name, value in os.environ.items() if name not in flags}
    return kept | {"PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}"}

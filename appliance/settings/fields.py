"""Every setting: its type, its default, and what it is for."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from appliance.errors import SettingsError
from appliance.settings import values
from appliance.settings.environment import PREFIX, config_file, credential
from appliance.settings.home import HOME, ROOT
from appliance.settings.toml_file import TomlFile

CREDENTIALS = {
    "tls_cert_file": "tls.crt",
    "tls_key_file": "tls.key",
    "remote_key_file": "remote.key",
    "database_password_file": "database.password",
}
"""Settings that name a file, and the credential that is it where they are not set."""

AnswerMode = Literal["drafted", "quoted", "curated"]


class Settings(BaseSettings):
    """What an administrator can change. Paths are absolute after validation."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
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
        return (init_settings, env_settings, TomlFile(settings_cls, config))

    @model_validator(mode="before")
    @classmethod
    def _absolute(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name, named in CREDENTIALS.items():
            if not given.get(name) and (found := credential(named)):
                given[name] = found
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
            if given.get(name):
                path = Path(given[name]).expanduser()
                # The data folder names the sockets, so that every way to write it has to mean the
                # same. An environment's Python is a link, and only by its own name that Python; a
                # certificate is renewed by moving the link to it.
                linked = name in ("runtime_dir", "vllm_python", "tls_cert_file", "tls_key_file")
                given[name] = path.absolute() if linked else path.resolve()
        return given

    _words = field_validator("vllm_extra_args", mode="before")(values.shell_words)
    _lists = field_validator("webhook_allow", "webhook_retry_seconds", mode="before")(values.listed)
    _codes = field_validator("languages", mode="before")(values.language_codes)
    _forward = field_validator("webhook_retry_seconds")(values.pauses)
    _queue = field_validator("queue_url")(values.queue)
    _loopback = field_validator("vllm_url")(values.on_this_machine)

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

"""What an administrator asks at 3 a.m.: each finding with what to do about it. Changes nothing."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from typing import Literal

from appliance import __version__
from appliance.errors import ApplianceError
from appliance.knowledge.embedding import packaged_model
from appliance.knowledge.onnx_graph import GraphStore
from appliance.llm import remote_access, weights
from appliance.llm.remote import RESULT, RemoteRejected
from appliance.operations import vllm
from appliance.operations.client import RunningAppliance
from appliance.operations.engine_keeper import health
from appliance.settings import Settings, config_file, ensure_folders, unknown_variables
from appliance.storage.database import Database

DISK_WARN_BYTES = 2 * 2**30
DISK_BAD_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    what: str
    state: Literal["ok", "warn", "bad"]
    detail: str
    hint: str = ""


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything; a look that fails is a finding, not an error."""
    return [
        Finding("version", "ok", f"{__version__}, Python {platform.python_version()}"),
        _configuration(),
        _folders(settings),
        _disk(settings),
        await _database(settings),
        _embeddings(settings),
        _model(settings),
        _engine(settings),
        await _remote(settings),
        await _api(settings),
    ]


def _configuration() -> Finding:
    unknown = unknown_variables()
    if unknown:
        return Finding(
            "configuration", "warn", f"{', '.join(unknown)} is no setting.", "Correct or unset it."
        )
    return Finding("configuration", "ok", str(config_file() or "defaults and environment"))


def _folders(settings: Settings) -> Finding:
    if not settings.data_dir.is_dir():
        return Finding(
            "folders", "warn", f"{settings.data_dir} does not exist", "Run 'appliance db upgrade'."
        )
    try:
        if settings.sockets.is_dir():
            ensure_folders(settings)
    except ApplianceError as error:
        return Finding("folders", "bad", error.detail, error.hint)
    return Finding("folders", "ok", f"data {settings.data_dir}, sockets {settings.sockets}")


def _disk(settings: Settings) -> Finding:
    try:
        there = next(p for p in (settings.data_dir, *settings.data_dir.parents) if p.is_dir())
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding("disk", "bad", f"{settings.data_dir}: {error.strerror}.", "Check the mount.")
    detail = f"{free / 2**30:.1f} GiB free"
    if free < DISK_BAD_BYTES:
        return Finding("disk", "bad", detail, "Free space now: soon nothing can be stored.")
    if free < DISK_WARN_BYTES:
        return Finding("disk", "warn", detail, "Free space or enlarge the volume.")
    return Finding("disk", "ok", detail)


async def _database(settings: Settings) -> Finding:
    try:
        database = Database(settings.resolved_database_url)
    except ApplianceError as error:
        return Finding("database", "bad", error.detail, error.hint)
    try:
        await database.check()
        articles = await database.read(lambda records: records.knowledge.count())
    except ApplianceError as error:
        return Finding("database", "bad", error.detail, error.hint)
    finally:
        await database.aclose()
    if not articles:
        return Finding(
            "database", "warn", "no articles", "Import knowledge with 'appliance kb import FILE'."
        )
    return Finding("database", "ok", f"migrated, {articles} articles")


def _embeddings(settings: Settings) -> Finding:
    try:
        folder = settings.embeddings_dir or packaged_model()
        graphs = GraphStore(folder, settings.data_dir / "embeddings")
    except ApplianceError as error:
        return Finding("embeddings", "bad", error.detail, error.hint)
    except OSError as error:
        return Finding(
            "embeddings", "bad", f"{error.filename}: {error.strerror}", "Check the file."
        )
    refused = graphs.note().get("refused")
    if refused is not None:
        return Finding(
            "embeddings",
            "warn",
            f"{folder}, without an ONNX graph: {refused}",
            "Vectors come from torch: as good, but slower to start and to encode.",
        )
    graph = "ONNX graph ready" if graphs.is_whole() else "the next start makes its ONNX graph"
    return Finding("embeddings", "ok", f"{folder}, {graph}")


def _model(settings: Settings) -> Finding:
    try:
        entry = weights.active(settings)
        if settings.backend == "vllm":
            vllm.launch(settings)
        else:
            weights.locate(settings, entry)
    except ApplianceError as error:
        return Finding("model", "bad", error.detail, error.hint)
    return Finding("model", "ok", f"{entry.name} ({entry.title})")


def _engine(settings: Settings) -> Finding:
    foreign = settings.backend == "vllm"
    seen = vllm.health(settings) if foreign else health(settings.engine_socket)
    status = seen.get("status")
    if status == "ok":
        served = f"serves {seen.get('model')}"
        if foreign:
            return Finding("engine", "ok", f"vLLM at {settings.vllm_url} {served}")
        return Finding("engine", "ok", f"{served}, sha256 {seen.get('sha256')}")
    if status is None:
        return Finding(
            "engine",
            "warn",
            "not running",
            "Start it with 'appliance up' or its unit; answers come from the articles meanwhile.",
        )
    state: Literal["warn", "bad"] = "warn" if status == "loading" else "bad"
    return Finding(
        "engine", state, f"{status}: {seen.get('detail') or ''}", "See the engine's log."
    )


async def _remote(settings: Settings) -> Finding:
    if not settings.remote_enabled:
        return Finding("remote", "ok", "off: no customer's word leaves this machine")
    try:
        host = remote_access.admitted(settings).host
    except ApplianceError as error:
        return Finding("remote", "bad", error.detail, error.hint)
    detail = f"on: redacted messages go to {host}, model {settings.remote_model}"
    try:
        database = Database(settings.resolved_database_url)
        try:
            latest = await database.read(lambda records: records.audit.list(1, action=RESULT))
        finally:
            await database.aclose()
    except ApplianceError:
        return Finding("remote", "ok", detail)  # the database is a finding of its own
    if latest and latest[0].details.get("outcome") == "rejected":
        return Finding(
            "remote",
            "warn",
            f"{detail}; the last call was refused: {latest[0].details.get('reason')}",
            RemoteRejected.default_hint,
        )
    return Finding("remote", "ok", detail)


async def _api(settings: Settings) -> Finding:
    async with RunningAppliance.connect(settings) as running:
        if running is None:
            return Finding(
                "api", "warn", "not running", "Start it with 'appliance up' or its unit."
            )
        try:
            ready = await running.get("/ready")
        except ApplianceError as error:
            return Finding(
                "api", "warn", f"not ready: {error.detail}", "Wait a moment, then look at its log."
            )
    return Finding("api", "ok", f"{ready['status']}, engine {ready['engine']}")

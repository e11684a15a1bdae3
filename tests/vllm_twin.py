"""Fixtures: a machine with vLLM on it, as far as starting it goes.

A small script stands in for the Python of vLLM's environment: it names the versions it is told to,
and says what it was started with.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.settings import Settings, load_settings

TELL = """#!/bin/sh
# Says what it was started with, one fact a line.
printf '%s\\n' "$$" "$0" "$HOME" "$HF_HUB_OFFLINE" "$KEPT" "$@"
"""


@pytest.fixture
def vllm_model(tmp_path: Path) -> Path:
    """A folder that looks like a model."""
    folder = tmp_path / "a model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model-00001-of-00002.safetensors"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def vllm_installed(tmp_path: Path) -> Callable[..., Path]:
    """Make an environment with these versions in it; its Python."""

    def make(**versions: str) -> Path:
        programs = tmp_path / "environment" / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        named = json.dumps({name.replace("_", "-"): v for name, v in versions.items()})
        python = programs / "python"
        python.write_text(f"#!/bin/sh\nif [ \"$1\" = -I ]; then echo '{named}'; exit; fi\n{TELL}")
        (programs / "vllm").write_text(TELL)
        for program in programs.iterdir():
            program.chmod(0o755)
        return python

    return make


@pytest.fixture
def vllm_settings(
    tmp_path: Path, vllm_model: Path, vllm_installed: Callable[..., Path]
) -> Callable[..., Settings]:
    """Settings of a machine with vLLM, changed as a test wants them."""

    def make(**changes: Any) -> Settings:
        given: dict[str, Any] = {
            "data_dir": tmp_path / "data",
            "backend": "vllm",
            "vllm_model_dir": vllm_model,
        }
        if "vllm_python" not in changes:
            given["vllm_python"] = vllm_installed(vllm="0.32.0")
        return load_settings(**given | changes)

    return make

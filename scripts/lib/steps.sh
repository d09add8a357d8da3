# shellcheck shell=bash
# Sourced by the other scripts: steps with their seconds, Debian packages, and the virtual environment in .venv/.
# The caller has set -euo pipefail and stands in the root of the repository.

STEP_NAMES=()
STEP_SECONDS=()
PACKAGES=(ca-certificates erofs-utils git iproute2 mmdebstrap nftables procps python3 python3-venv xz-utils)
SELF_STARTED=$(date +%s.%N)

seconds_since() { python3 -c "import sys; print(f'{float(sys.argv[2]) - float(sys.argv[1]):.1f}')" "$1" "$(date +%s.%N)"; }

# step NAME COMMAND...: runs it, its output as it comes, and says how long it took.
step() {
    local name=$1 started took status
    shift
    printf '==> %s\n' "$name" >&2
    started=$(date +%s.%N)
    set +e
    (set -e && "$@") # in a condition bash would ignore -e inside
    status=$?
    set -e
    took=$(seconds_since "$started")
    STEP_NAMES+=("$name")
    STEP_SECONDS+=("$took")
    if ((status)); then
        printf '==> %s: failed with status %d after %s s\n' "$name" "$status" "$took" >&2
        exit "$status"
    fi
    printf '    %s s\n' "$took" >&2
}

# Prints the table of all steps so far.
print_steps() {
    local index
    printf '%10s  %s\n' seconds step >&2
    for index in "${!STEP_NAMES[@]}"; do printf '%10s  %s\n' "${STEP_SECONDS[index]}" "${STEP_NAMES[index]}" >&2; done
    printf '%10s  %s\n' "$(seconds_since "$SELF_STARTED")" all >&2
}

# install_packages: Debian packages that are not there yet. Needs root only if any is missing.
install_packages() {
    local missing=() package
    if ! command -v dpkg-query >/dev/null; then
        echo "This is not a Debian machine: install by hand what is missing of: ${PACKAGES[*]}" >&2
        return 0
    fi
    for package in "${PACKAGES[@]}"; do
        if [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then missing+=("$package"); fi
    done
    if ((${#missing[@]} == 0)); then return 0; fi
    echo "installing ${missing[*]}" >&2
    if ((EUID != 0)); then
        echo "Not root: run 'apt-get install ${missing[*]}' as root first." >&2
        return 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -o DPkg::Lock::Timeout=120 update
    apt-get -qq -o DPkg::Lock::Timeout=120 install --no-install-recommends -y "${missing[@]}" >/dev/null
}

# The first Python that is new enough and can make environments.
find_python() {
    local candidate
    for candidate in "${BELLJAR_PYTHON:-python3}" python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    echo "No Python 3.11 or newer with venv found (set BELLJAR_PYTHON)." >&2
    return 1
}

# make_venv: .venv/ holds exactly what requirements.lock says, and this project as it stands in src/.
make_venv() {
    local python stamp
    python=$(find_python)
    stamp=$("$python" --version; cat requirements.lock pyproject.toml; pwd)
    stamp=$(sha256sum <<<"$stamp")
    if [[ -x .venv/bin/python && $(cat .venv/made-from 2>/dev/null) == "$stamp" ]]; then return 0; fi
    "$python" -m venv --clear .venv
    .venv/bin/python -m pip -qq --disable-pip-version-check install --require-hashes --no-deps -r requirements.lock
    .venv/bin/python -m pip -qq --disable-pip-version-check install --no-deps --no-build-isolation --editable .
    printf '%s\n' "$stamp" >.venv/made-from
}

# Python packages for the scripts of this folder that source it, in an environment below the target folder.

target=${CARGO_TARGET_DIR:-${CARGO_BUILD_TARGET_DIR:-target}}
venv=$target/venv

skip() {
    printf 'SKIPPED: %s\n' "$*" >&2
    exit 77
}

has_venv() { command -v python3 >/dev/null 2>&1 && python3 -c 'import ensurepip, venv' >/dev/null 2>&1; }

# with_package NAME==VERSION: has it in the environment, or ends the script with 77 and the reason.
with_package() {
    if ! has_venv && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        { apt-get -q -o DPkg::Lock::Timeout=300 update && apt-get -q -y -o DPkg::Lock::Timeout=300 install \
            --no-install-recommends python3-venv; } >&2 || true
    fi
    has_venv || skip 'python3 with venv is missing. To get it, as root: apt-get install python3-venv'
    if ! [ -e "$venv/.has-$1" ]; then
        [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
        "$venv/bin/pip" install -q --disable-pip-version-check "$1" >&2 ||
            skip "$1 could not be had from the package index; the reason is above"
        : >"$venv/.has-$1"
    fi
}

#!/bin/sh
# Runs every check of the workspace, each to its end, so that one run tells everything that is wrong. The last line sums up
# the real results of all test programs in cargo's own words; a test that left itself out, because this machine lacks what it
# needs, counts as ignored there and is named above. Exit code 1 when anything failed.
set -u

cd "$(dirname "$0")/.." || exit 1

log=$(mktemp "${TMPDIR:-/tmp}/seckill-test.XXXXXX") || exit 1
trap 'rm -f "$log" "$log.status"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

failed=''
summary=''
skipped_steps=0

heading() { printf '\n======== %s\n' "$*"; }

note() { summary="$summary
  $1: $2"; }

# A step that needs a component of rustup that a user's machine may lack: then it is left out, and visibly so.
component_step() {
    name=$1 component=$2
    shift 2
    heading "$*"
    if ! cargo "$name" --version >/dev/null 2>&1; then
        printf 'SKIPPED: cargo %s is not installed. To get it, run:\n    rustup component add %s\n' "$name" "$component"
        note "cargo $name" "SKIPPED, not installed (rustup component add $component)"
        skipped_steps=$((skipped_steps + 1))
    elif "$@"; then
        note "cargo $name" 'ok'
    else
        note "cargo $name" 'FAILED'
        failed=yes
    fi
}

# A step that says itself, with exit code 77, that something it needs is not here.
script_step() {
    name=$1
    shift
    heading "$*"
    code=0
    "$@" || code=$?
    case $code in
    0) note "$name" 'ok' ;;
    77)
        note "$name" 'SKIPPED, the reason is above'
        skipped_steps=$((skipped_steps + 1))
        ;;
    *)
        note "$name" 'FAILED'
        failed=yes
        ;;
    esac
}

component_step fmt rustfmt cargo fmt --all --check
component_step clippy clippy cargo clippy --locked --release --workspace --all-targets -- -D warnings

script_step 'kubernetes manifests' sh ci/manifests.sh
script_step 'workflows to copy' sh ci/workflows.sh
script_step 'gate of itself' sh ci/gate.sh
script_step 'toxiproxy client' sh ci/toxiproxy.sh
script_step 'container image' sh ci/image/test.sh
script_step 'compose file' sh ci/compose/test.sh

heading cargo test --locked --release --workspace --no-fail-fast
# Most tests rehearse something, which is mostly waiting, and wait for room before (harness/tests/e2e/support): with some more at
# a time than there are processors, the others go on meanwhile.
RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc 2>/dev/null || echo 2) * 2))}
export RUST_TEST_THREADS
started=$(date +%s)
# The results go through a pipe to be counted, and a pipe has only the exit code of its end.
{
    cargo test --locked --release --workspace --no-fail-fast
    echo $? >"$log.status"
} | tee "$log"
finished=$(($(date +%s) - started))
status=$(cat "$log.status" 2>/dev/null || echo 1)
if [ "$status" -eq 0 ]; then
    note 'cargo test' 'ok'
else
    note 'cargo test' "FAILED (exit code $status)"
    failed=yes
fi

heading "results$summary"
awk -v seconds="$finished" -v status="$status" -v steps="$skipped_steps" '
    # As harness/tests/e2e/support/skipped.rs says it. The runner may have begun a line of its own before it.
    match($0, /SKIPPED( IN PART)?: /) {
        said = substr($0, RSTART)
        if (!(said in seen)) {
            seen[said] = 1
            told[++tellings] = said
            if (said ~ /^SKIPPED: /) whole++; else parts++
        }
    }
    /^test result: / {
        programs++
        for (i = 2; i <= NF; i++) {
            if ($i == "passed;") passed += $(i - 1)
            if ($i == "failed;") failed += $(i - 1)
            if ($i == "ignored;") ignored += $(i - 1)
            if ($i == "measured;") measured += $(i - 1)
            if ($i == "filtered") filtered += $(i - 1)
        }
    }
    END {
        printf "  left out for want of what this machine lacks: %d whole tests, %d tests in part, %d steps\n", whole, parts, steps
        for (i = 1; i <= tellings; i++) printf "    %s\n", told[i]
        printf "  of %d test programs together:\n\n", programs
        # To cargo, a test that left itself out has passed.
        passed -= whole
        ignored += whole
        printf "test result: %s. %d passed; %d failed; %d ignored; %d measured; %d filtered out; finished in %d.00s\n",
            (status == 0 && programs > 0) ? "ok" : "FAILED", passed, failed, ignored, measured, filtered, seconds
        exit (status == 0 && programs > 0) ? 0 : 1
    }
' "$log" || failed=yes

[ -z "$failed" ]

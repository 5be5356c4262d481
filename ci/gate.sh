#!/bin/sh
# The regression gate on this project itself. The build is held against itself in a short duet, which no noise of the machine may turn
# red; and the hops and calls of the old side are held against the committed baseline, strictly, since they are counted.
# Exit code 77 when the machine is too busy for anything to be said.
set -eu

cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-${CARGO_BUILD_TARGET_DIR:-target}}
seckill=$target/release/seckill
out=$target/gate-of-itself
rm -rf "$out"

code=0
"$seckill" gate scenarios/gate.toml --rounds 2 --out "$out" --keep --quiet || code=$?
if [ "$code" -eq 12 ]; then
    printf 'SKIPPED: the machine is too busy to compare anything; the reason is above\n' >&2
    exit 77
fi
[ "$code" -eq 0 ] || exit "$code"
if ! [ -f reports/baselines/gate.json ]; then
    printf 'SKIPPED: there is no committed baseline of hops and calls. To make it, and then commit it:\n' >&2
    printf '    %s baseline save %s/round-1-old %s/round-2-old --name gate\n' "$seckill" "$out" "$out" >&2
    exit 77
fi
"$seckill" baseline diff gate "$out/round-1-old" --strict

#!/bin/sh
# Brings the compose file up with what was built here, sees that the rehearsal in it passes, and takes everything down again.
# Exit code 77 when there is no container engine, no compose, or no Postgres to make an image of.
set -eu

cd "$(dirname "$0")/../.."

. ci/image/root.sh
needs_an_engine
if docker compose version >/dev/null 2>&1; then
    compose() { docker compose "$@"; }
elif docker-compose version >/dev/null 2>&1; then
    compose() { docker-compose "$@"; }
else
    printf 'SKIPPED: there is no docker compose and no docker-compose here\n' >&2
    exit 77
fi
made=0
sh ci/image/databases.sh postgres || made=$?
if [ "$made" -eq 20 ]; then
    printf 'SKIPPED: there is no Postgres to make an image of, the reason is above\n' >&2
    exit 77
fi
[ "$made" -eq 0 ] || exit "$made"

SECKILL_IMAGE=seckill-compose-$$
REPORTS=$(mktemp -d)
export SECKILL_IMAGE REPORTS
up() { compose -p "seckill-compose-$$" -f ci/compose/compose.yaml "$@"; }
end() {
    up down --volumes --timeout 2 >/dev/null 2>&1 || :
    docker rmi -f "$SECKILL_IMAGE" >/dev/null 2>&1 || :
    rm -rf "$REPORTS"
}
trap end EXIT
FROM_HERE=yes sh ci/image/build.sh "$SECKILL_IMAGE" >/dev/null
code=0
up up --exit-code-from rehearsal >"$REPORTS/log" 2>&1 || code=$?
if [ "$code" -ne 0 ] || ! grep -q '"verdict": "pass"' "$REPORTS/compose/summary.json"; then
    cat "$REPORTS/log"
    printf 'compose: the rehearsal ended with %s\n' "$code" >&2
    exit 1
fi
printf 'compose: a rehearsal beside its service and its database passed\n'

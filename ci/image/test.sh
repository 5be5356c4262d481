#!/bin/sh
# Builds the image under a name of its own, sees that it does what the manifests ask of it, and removes it again.
set -eu

cd "$(dirname "$0")/../.."

name=seckill-test-$$
status=0
FROM_HERE=yes sh ci/image/build.sh "$name" || status=$?
[ "$status" -eq 0 ] || exit "$status"
trap 'docker rmi -f "$name" >/dev/null' EXIT
# As strict as the manifests are: no privileges, nothing writable, no network.
run() { docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges --network none "$@"; }
run "$name" --version
run "$name" merge --help >/dev/null
# With the shell, as the Job starts it; a start that is past has to be refused by the program itself.
said=$(run --entrypoint sh -v "$PWD/ci/kubernetes/base/scenario.toml:/etc/seckill/scenario.toml:ro" -e JOB_COMPLETION_INDEX=1 \
    "$name" -c 'exec seckill run /etc/seckill/scenario.toml --shard "$((JOB_COMPLETION_INDEX + 1))/2" \
        --start-at 2020-01-01T00:00:00Z --out /runs/shard-2 2>&1') && exit 1
case $said in
*'--start-at is '*' s ago'*) printf 'image: runs as the manifests start it\n' ;;
*)
    printf 'image: %s\n' "$said" >&2
    exit 1
    ;;
esac

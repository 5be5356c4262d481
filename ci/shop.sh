#!/bin/sh
# A shop to look at: a database of its own, the service, profiles and the access layer, with one item that opens in half a minute. It
# stays up until Ctrl-C, and leaves nothing behind. Arguments go to `seckill-target sell`; PORT is where the page is.
set -eu

cd "$(dirname "$0")/.."

target="${CARGO_TARGET_DIR:-target}/release/seckill-target"
port=${PORT:-8080}

say() { printf '%s\n' "$*" >&2; }

[ -x "$target" ] || { say "there is no $target; to get it, run: make build"; exit 20; }

postgres_bin() {
    for bin in $(dirname "$(command -v initdb 2>/dev/null || echo /nowhere/initdb)") /usr/lib/postgresql/*/bin; do
        [ -x "$bin/initdb" ] && [ -x "$bin/postgres" ] && found=$bin
    done
    printf '%s' "${found:-}"
}
bin=$(postgres_bin)
[ -n "$bin" ] || { say 'initdb and postgres are missing; to get them, run: make setup'; exit 20; }

folder=$(mktemp -d "${TMPDIR:-/tmp}/shop.XXXXXX")
started=''
finish() {
    trap - EXIT INT TERM
    # Last started, first stopped; each is one of ours.
    for process in $started; do kill "$process" 2>/dev/null || :; done
    for process in $started; do wait "$process" 2>/dev/null || :; done
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Postgres does not run as root.
as_postgres=''
if [ "$(id -u)" -eq 0 ]; then
    as_postgres='setpriv --reuid=postgres --regid=postgres --clear-groups'
    chown postgres "$folder"
    chmod 755 "$folder"
fi

# What a process says on its first line when it is ready holds its addresses.
address() { sed -n "s/.*\"$2\":\"\([^\"]*\)\".*/\1/p" "$folder/$1.ready"; }
start() {
    name=$1
    shift
    "$@" >"$folder/$name.ready" 2>"$folder/$name.log" &
    started="$! $started"
    tries=0
    until grep -q '"ready":true' "$folder/$name.ready"; do
        tries=$((tries + 1))
        if [ "$tries" -gt 300 ] || ! kill -0 "${started%% *}" 2>/dev/null; then
            say "$name did not start:"
            tail -n 5 "$folder/$name.log" >&2
            exit 1
        fi
        sleep 0.1
    done
}

say 'starting a shop ...'
# The words of the command are separate on purpose.
# shellcheck disable=SC2086
(cd "$folder" && LC_ALL=C $as_postgres "$bin/initdb" --no-sync --auth=trust --username=postgres --encoding=UTF8 --locale=C \
    -D "$folder/data" >"$folder/initdb.log" 2>&1) || { tail -n 5 "$folder/initdb.log" >&2; exit 1; }
# shellcheck disable=SC2086
LC_ALL=C $as_postgres "$bin/postgres" -D "$folder/data" -c listen_addresses= -c "unix_socket_directories=$folder" \
    >"$folder/postgres.log" 2>&1 &
started="$!"
start profile "$target" profile --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0
start service "$target" serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --profile "$(address profile listen)" \
    --database-url "host=$folder user=postgres dbname=postgres"
start access "$target" access --listen "127.0.0.1:$port" --admin-listen 127.0.0.1:0 --service "$(address service listen)"
"$target" sell --admin "$(address service admin)" "$@"

say "the page:       http://$(address access listen)/items/1/page"
say "sell again:     $target sell --admin $(address service admin) --opens-in 30s --stock 20"
say "drills, audit:  http://$(address service admin)/metrics, /audit/stock, /switches, /degrade"
say "access layer:   http://$(address access admin)/metrics"
say 'Ctrl-C closes the shop.'
wait

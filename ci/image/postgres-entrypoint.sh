#!/bin/sh
# What the image of Postgres does first, as far as the public image does it, too: makes the cluster where there is none yet.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    # The options are several words.
    # shellcheck disable=SC2086
    initdb -D "$PGDATA" -U "${POSTGRES_USER:-postgres}" -A trust ${POSTGRES_INITDB_ARGS:-}
    printf 'host all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
fi
exec "$@"

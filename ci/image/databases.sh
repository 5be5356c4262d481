#!/bin/sh
# Makes the images of the databases that `--stack containers` runs, for where the public ones cannot be pulled: seckill-postgres
# and seckill-redis, from the packages that are installed on this machine. They are started like the public ones, with the same
# variables and arguments. An image that is there and was made of the same packages is left as it is.
# Usage: databases.sh [postgres] [redis]; both unless named. What is not installed is left out, visibly; exit code 20 if that
# was asked for by name, and 77 when no container engine answers.
set -eu

cd "$(dirname "$0")/../.."

. ci/image/root.sh
needs_an_engine

release=${CARGO_TARGET_DIR:-${CARGO_BUILD_TARGET_DIR:-target}}/release
scripts=$(cat ci/image/root.sh ci/image/databases.sh ci/image/postgres-entrypoint.sh | cksum | cut -d ' ' -f 1)

# Whether an image is there already: its name, and the version that it was made of.
is_made_of() {
    [ "$(docker image inspect --format '{{index .Config.Labels "seckill.made-of"}}' "$1" 2>/dev/null)" = "$2" ]
}

is_missing() {
    printf '%s: %s\n' "$1" "$2" >&2
    [ -z "$named" ] || exit 20
}

postgres() {
    # Where the programs are, the doctor knows; it also says what to do where there are none.
    bin=$("$release/seckill" doctor --output json | sed -n 's/.*"detail": "[0-9.]* in \(.*\)".*/\1/p' | head -n 1)
    if [ -z "$bin" ]; then
        is_missing seckill-postgres 'not made: there is no Postgres server here; `seckill doctor` says how to get one'
        return
    fi
    version="$("$bin/postgres" --version), $scripts"
    if is_made_of seckill-postgres "$version"; then
        printf 'seckill-postgres: is there already\n'
        return
    fi
    share=$("$bin/pg_config" --sharedir) modules=$("$bin/pg_config" --pkglibdir)
    root=$(mktemp -d)
    skeleton
    with_path "$bin/postgres" "$bin/initdb" "$(command -v mkdir)"
    mkdir -p "$root$share" "$root$modules" "$root/var/lib/postgresql/data" "$root/var/run/postgresql" "$root/usr/share"
    # Without the compiler for queries, which is ten times as large as the rest, and what depends on it.
    for module in "$modules"/*.so; do
        case $module in */llvmjit.so | */sepgsql.so) ;; *) with_path "$module" ;; esac
    done
    cp -rL "$share/." "$root$share"
    [ ! -d /usr/share/zoneinfo ] || cp -r /usr/share/zoneinfo "$root/usr/share/"
    chmod 1777 "$root/var/run/postgresql"
    printf 'root:x:0:0::/:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\npostgres:x:999:\n' >"$root/etc/group"
    cp ci/image/postgres-entrypoint.sh "$root/usr/bin/postgres-entrypoint.sh"
    chmod 755 "$root/usr/bin/postgres-entrypoint.sh"
    libraries_of "$root/usr/bin/sh" "$(command -v mkdir)" "$bin/postgres" "$bin/initdb" "$root$modules"/*.so
    import_as seckill-postgres var/lib/postgresql/data \
        --change 'ENTRYPOINT ["/usr/bin/postgres-entrypoint.sh"]' --change 'CMD ["postgres"]' --change 'USER 999:999' \
        --change 'ENV PGDATA=/var/lib/postgresql/data' --change "ENV PATH=$bin:/usr/bin:/bin" \
        --change 'VOLUME /var/lib/postgresql/data' --change 'EXPOSE 5432' \
        --change "LABEL seckill.made-of=\"$version\"" >/dev/null
    rm -rf "$root"
    printf 'seckill-postgres: made of %s\n' "$("$bin/postgres" --version)"
}

redis() {
    # A package without its service has the server under another name, which the doctor knows.
    server=$("$release/seckill" doctor --output json | grep -A 5 '"name": "Redis server"' |
        sed -n 's/.*"detail": "\(.*\)".*/\1/p')
    if [ -z "$server" ]; then
        is_missing seckill-redis 'not made: there is no Redis server here; `seckill doctor` says how to get one'
        return
    fi
    root=$(mktemp -d)
    skeleton
    mkdir -p "$root/data"
    # It tells by its own name what it is to be.
    cp -L "$server" "$root/usr/bin/redis-server"
    version="$("$root/usr/bin/redis-server" --version), $scripts"
    if is_made_of seckill-redis "$version"; then
        rm -rf "$root"
        printf 'seckill-redis: is there already\n'
        return
    fi
    libraries_of "$root/usr/bin/sh" "$server"
    import_as seckill-redis data \
        --change 'CMD ["redis-server"]' --change 'USER 999:999' --change 'ENV PATH=/usr/bin:/bin' \
        --change 'WORKDIR /data' --change 'VOLUME /data' --change 'EXPOSE 6379' \
        --change "LABEL seckill.made-of=\"$version\"" >/dev/null
    printf 'seckill-redis: made of %s\n' "$("$root/usr/bin/redis-server" --version)"
    rm -rf "$root"
}

named=${1:-}
root=''
trap '[ -z "$root" ] || rm -rf "$root"' EXIT
for database in ${*:-postgres redis}; do
    case $database in
    postgres | redis) "$database" ;;
    *)
        printf 'databases.sh: there is no database %s; give postgres or redis\n' "$database" >&2
        exit 2
        ;;
    esac
done

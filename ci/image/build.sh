#!/bin/sh
# Builds the container image: from its Containerfile where the base images can be had, and otherwise from the programs that
# were built on this machine, with the shell and the libraries that they need, which comes to the same.
# Usage: build.sh [NAME]. BASE and RUST name other base images; FROM_HERE=yes takes what was built in any case, as tests do,
# since compiling everything once more takes minutes. Exit code 77 when no container engine answers.
set -eu

cd "$(dirname "$0")/../.."

name=${1:-seckill}
release=${CARGO_TARGET_DIR:-${CARGO_BUILD_TARGET_DIR:-target}}/release
base=${BASE:-docker.io/library/debian:bookworm-slim}
rust=${RUST:-docker.io/library/rust:1-bookworm}

. ci/image/root.sh
needs_an_engine

if [ "${FROM_HERE:-no}" = yes ]; then
    :
elif docker pull -q "$base" >/dev/null 2>&1 && docker pull -q "$rust" >/dev/null 2>&1; then
    DOCKER_BUILDKIT=0 docker build -f ci/image/Containerfile --build-arg "BASE=$base" --build-arg "RUST=$rust" -t "$name" .
    exit
else
    printf 'image: %s cannot be pulled, so the image is made of what is on this machine\n' "$base" >&2
fi
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
skeleton
cp "$release/seckill" "$release/seckill-target" "$root/usr/bin/"
# The HTTP client wants to know whom it could trust, even where nothing is encrypted.
mkdir -p "$root/etc/ssl/certs"
for bundle in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
    if [ -n "$bundle" ] && [ -s "$bundle" ]; then
        cp -L "$bundle" "$root/etc/ssl/certs/ca-certificates.crt"
        break
    fi
done
libraries_of "$root/usr/bin/seckill" "$root/usr/bin/seckill-target" "$root/usr/bin/sh"
import_as "$name" - --change 'ENTRYPOINT ["seckill"]' --change 'USER 10001:10001' --change 'WORKDIR /tmp' \
    --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin' --message 'seckill'

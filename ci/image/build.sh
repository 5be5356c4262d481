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

if ! docker version >/dev/null 2>&1; then
    printf 'SKIPPED: no container engine answers (docker version)\n' >&2
    exit 77
fi

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
# Below usr, with links beside it, as Debian has it: the loader's path is part of every program.
mkdir -p "$root/usr/bin" "$root/usr/lib" "$root/usr/lib64" "$root/etc" "$root/tmp"
for link in bin lib lib64; do ln -s "usr/$link" "$root/$link"; done
chmod 1777 "$root/tmp"
cp "$release/seckill" "$release/seckill-target" "$root/usr/bin/"
cp "$(readlink -f "$(command -v sh)")" "$root/usr/bin/sh"
cp /etc/os-release "$root/etc/"
# The HTTP client wants to know whom it could trust, even where nothing is encrypted.
mkdir -p "$root/etc/ssl/certs"
for bundle in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
    if [ -n "$bundle" ] && [ -s "$bundle" ]; then
        cp -L "$bundle" "$root/etc/ssl/certs/ca-certificates.crt"
        break
    fi
done
for program in seckill seckill-target sh; do
    ldd "$root/usr/bin/$program" | grep -o '/[^ ]*'
done | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
tar -C "$root" --numeric-owner --owner=0 --group=0 -c . | docker import \
    --change 'ENTRYPOINT ["seckill"]' --change 'USER 10001:10001' --change 'WORKDIR /tmp' \
    --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin' --message 'seckill' - "$name"

#!/bin/sh
# Validates the Kubernetes manifests without a cluster: every kustomization is rendered, and what comes out is held against
# the schemas of Kubernetes, strictly. A manifest with known mistakes has to be refused, or the validator proves nothing.
# Exit code 77 when there is no Python to do it with, and the reason on stderr.
set -eu

cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-${CARGO_BUILD_TARGET_DIR:-target}}
venv=$target/venv
out=$target/manifests
kubernetes=1.34

skip() {
    printf 'SKIPPED: %s\n' "$*" >&2
    exit 77
}

has_venv() { command -v python3 >/dev/null 2>&1 && python3 -c 'import ensurepip, venv' >/dev/null 2>&1; }

if ! has_venv && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    { apt-get -q -o DPkg::Lock::Timeout=300 update && apt-get -q -y -o DPkg::Lock::Timeout=300 install \
        --no-install-recommends python3-venv; } >&2 || true
fi
has_venv || skip 'python3 with venv is missing. To get it, as root: apt-get install python3-venv'
if ! [ -x "$venv/bin/kubernetes-validate" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check 'kubernetes-validate==1.37.0' >&2 ||
        skip 'kubernetes-validate could not be had from the package index; the reason is above'
fi

# Quiet unless something is wrong; the version of Kubernetes is the oldest that the manifests are for.
validate() { "$venv/bin/kubernetes-validate" --strict --no-warn --quiet -k "$kubernetes" "$1"; }

mkdir -p "$out"
for name in base merge example; do
    "$venv/bin/python" ci/manifests.py "ci/kubernetes/$name" >"$out/$name.yaml"
    validate "$out/$name.yaml"
    printf '%s: valid\n' "$name"
    # Where kustomize itself is at hand, it has to render them, too.
    if command -v kubectl >/dev/null 2>&1 && kubectl kustomize "ci/kubernetes/$name" >"$out/$name.kustomize.yaml"; then
        validate "$out/$name.kustomize.yaml"
        "$venv/bin/python" - "$out/$name.yaml" "$out/$name.kustomize.yaml" <<'COMPARE'
import sys

import yaml

ours, theirs = ({(r["kind"], r["metadata"]["name"]): r for r in yaml.safe_load_all(open(p, encoding="utf-8"))} for p in sys.argv[1:])
if ours != theirs:
    sys.exit(f"{sys.argv[1]} and {sys.argv[2]} are different: ci/manifests.py does not do what kustomize does")
COMPARE
        printf '%s: kustomize renders the same\n' "$name"
    fi
done
bad=ci/kubernetes/golden/misspelt.yaml
if validate "$bad" >"$out/misspelt.log" 2>&1 || ! grep -q paralellism "$out/misspelt.log"; then
    printf 'the validator does not refuse %s for its misspelt key, so it proves nothing\n' "$bad" >&2
    exit 1
fi
printf '%s: refused, as it has to be\n' "$bad"

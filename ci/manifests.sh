#!/bin/sh
# Validates the Kubernetes manifests without a cluster: every kustomization is rendered, and what comes out is held against
# the schemas of Kubernetes, strictly. A manifest with known mistakes has to be refused, or the validator proves nothing.
# Exit code 77 when there is no Python to do it with, and the reason on stderr.
set -eu

cd "$(dirname "$0")/.."

. ci/venv.sh
out=$target/manifests
kubernetes=1.34

with_package 'kubernetes-validate==1.37.0'

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

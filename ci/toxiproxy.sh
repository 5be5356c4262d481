#!/bin/sh
# Drives `seckill proxy` with a client of Toxiproxy that others wrote: toxiproxy-python from the package index.
# Exit code 77 when there is no Python to do it with, and the reason on stderr.
set -eu

cd "$(dirname "$0")/.."

. ci/venv.sh

with_package 'toxiproxy-python==0.1.1'
exec "$venv/bin/python" ci/toxiproxy_client.py "$target/release/seckill"

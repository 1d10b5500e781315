#!/bin/sh
# Streams real parts through the service and compares with the Python pipeline (docs/accuracy.md).
set -eu
cd "$(dirname "$0")/.."
venv=.cache/venv-score
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
    grep -v '^torch' models/requirements.txt | "$venv/bin/pip" install --quiet --requirement /dev/stdin
fi
LINEPROOF_PYTHON=$venv/bin/python cargo test --release --locked --test real

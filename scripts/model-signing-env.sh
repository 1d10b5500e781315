#!/bin/sh
# Prints the path of OpenSSF's stock `model_signing`, against which signatures of recipe folders are tested; makes a venv for it
# once, below .cache/. Prints nothing where it cannot be installed: the test then says that it was skipped.
set -eu
cd "$(dirname "$0")/.."
venv=.cache/venv-model-signing
# pyOpenSSL is imported by the tool, but not named among what it needs.
packages="model-signing==1.1.1 pyOpenSSL==25.3.0"
if [ "$(cat "$venv/packages" 2>/dev/null)" != "$packages" ]; then
    rm -rf "$venv"
    # Not ready before the package is in: an interrupted run starts again.
    if ! { python3 -m venv "$venv" && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $packages; } >&2; then
        rm -rf "$venv"
        echo "signatures are not tested against the stock tool: the Python packages $packages cannot be installed" >&2
        exit 0
    fi
    echo "$packages" >"$venv/packages"
fi
echo "$PWD/$venv/bin/model_signing"

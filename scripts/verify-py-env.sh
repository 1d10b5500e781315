#!/bin/sh
# Prints the path of a Python that has the one package clients/verify-py needs, and the COSE implementation that the
# receipts are held against; makes a venv for both once, below .cache/.
set -eu
cd "$(dirname "$0")/.."
venv=.cache/venv-verify-py
packages="cryptography==48.0.0 pycose==1.1.0 cbor2==5.7.1"
if [ "$(cat "$venv/packages" 2>/dev/null)" != "$packages" ]; then
    rm -rf "$venv"
    # Not ready before the package is in: an interrupted run starts again.
    if ! { python3 -m venv "$venv" && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $packages; } >&2
    then
        echo "the tests of the evidence need the Python packages $packages; python3 with venv and pip must be able to install them" >&2
        exit 1
    fi
    echo "$packages" >"$venv/packages"
fi
echo "$PWD/$venv/bin/python"

#!/bin/sh
# Prints the path of a Python that has the one package clients/verify-py needs; makes a venv for it once, below .cache/.
set -eu
cd "$(dirname "$0")/.."
venv=.cache/venv-verify-py
if [ ! -x "$venv/ready" ]; then
    rm -rf "$venv"
    # Not ready before the package is in: an interrupted run starts again.
    if ! { python3 -m venv "$venv" && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check cryptography==48.0.0; } >&2
    then
        echo "clients/verify-py is tested with the Python package cryptography 48.0.0; python3 with venv and pip must be able to install it" >&2
        exit 1
    fi
    ln -s bin/python "$venv/ready"
fi
echo "$PWD/$venv/bin/python"

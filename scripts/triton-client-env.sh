#!/bin/sh
# Prints the path of a Python that has tritonclient, with which the Open Inference Protocol is tested; makes a venv for it once,
# below .cache/. Prints nothing where it cannot be installed: the test then says that it was skipped.
set -eu
cd "$(dirname "$0")/.."
venv=.cache/venv-tritonclient
packages="tritonclient[grpc]==2.73.0"
if [ "$(cat "$venv/packages" 2>/dev/null)" != "$packages" ]; then
    rm -rf "$venv"
    # Not ready before the package is in: an interrupted run starts again.
    if ! { python3 -m venv "$venv" && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$packages"; } >&2; then
        rm -rf "$venv"
        echo "the Open Inference Protocol is not tested: the Python package $packages cannot be installed" >&2
        exit 0
    fi
    echo "$packages" >"$venv/packages"
fi
echo "$PWD/$venv/bin/python"

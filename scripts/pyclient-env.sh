#!/bin/sh
# Prints the path of a Python in which clients/python is installed, with what its checks need; makes a venv for it once, below
# .cache/, and again after a change of the package. Prints nothing where it cannot be installed: the test then says that it was skipped.
set -eu
cd "$(dirname "$0")/.."
venv=.cache/venv-pyclient
# grpcio-tools 1.80.0 writes code of protobuf 6.31.1, the oldest that the package promises to work with.
packages="grpcio==1.85.3 grpcio-status==1.85.3 grpcio-health-checking==1.81.1 protobuf==6.33.6 blake3==1.0.11
    grpcio-tools==1.80.0 mypy-protobuf==5.1.0 hatchling==1.33.0 tritonclient[grpc]==2.73.0 numpy==2.4.6
    mypy==2.4.1 types-grpcio==1.85.0.20261028 types-grpcio-health-checking==1.0.0.20261021 types-grpcio-status==1.0.0.20260408
    types-protobuf==6.32.1.20260221"
pip() {
    "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"
}
if [ "$(cat "$venv/packages" 2>/dev/null)" != "$packages" ]; then
    rm -rf "$venv"
    # Not ready before the packages are in: an interrupted run starts again.
    if ! { python3 -m venv "$venv" && pip install $packages; } >&2; then
        rm -rf "$venv"
        echo "clients/python is not tested: the Python packages it needs cannot be installed" >&2
        exit 0
    fi
    echo "$packages" >"$venv/packages"
fi
sources="$(find clients/python -name .mypy_cache -prune -o -type f ! -name '*.pyc' -print | LC_ALL=C sort | xargs cksum)"
if [ "$(cat "$venv/sources" 2>/dev/null)" != "$sources" ]; then
    # As a user installs it, but with the pinned packages. What fails here is a fault of ours.
    pip install --force-reinstall --no-deps --no-build-isolation ./clients/python >&2
    echo "$sources" >"$venv/sources"
fi
echo "$PWD/$venv/bin/python"

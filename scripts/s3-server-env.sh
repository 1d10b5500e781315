#!/bin/sh
# Prints the path of moto's S3 server, against which backups to S3 are tested; makes a venv for it once, below .cache/.
# Prints nothing where it cannot be installed: the test then says that it was skipped.
set -eu
cd "$(dirname "$0")/.."
venv=.cache/venv-moto
if [ ! -x "$venv/ready" ]; then
    rm -rf "$venv"
    # Not ready before the package is in: an interrupted run starts again.
    if ! { python3 -m venv "$venv" && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "moto[server]==5.2.1"; } >&2
    then
        rm -rf "$venv"
        echo "backups to S3 are not tested: the Python package moto 5.2.1 cannot be installed" >&2
        exit 0
    fi
    ln -s bin/moto_server "$venv/ready"
fi
echo "$PWD/$venv/bin/moto_server"

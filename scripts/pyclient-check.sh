#!/bin/sh
# Holds clients/python against the proto it is generated from, and its package and examples against their types.
set -eu
cd "$(dirname "$0")/.."
python="$(scripts/pyclient-env.sh)"
# Where nothing can be installed, that was said.
[ -n "$python" ] || exit 0
"$python" clients/python/generate.py --check
cd clients/python
"$python" -m mypy --strict --cache-dir "$OLDPWD/.cache/mypy"

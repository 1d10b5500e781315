#!/bin/sh
# Prints the path of the identity provider with which access tokens are tested, tests/it/oidc-provider; installs it once, below
# .cache/. Prints nothing where it cannot be installed: the test then says that it was skipped.
set -eu
cd "$(dirname "$0")/.."
from=tests/it/oidc-provider
to=.cache/oidc-provider
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo "access tokens of an identity provider are not tested: there is no Node.js with npm" >&2
    exit 0
fi
if ! cmp -s "$from/package-lock.json" "$to/installed"; then
    rm -rf "$to"
    mkdir -p "$to"
    cp "$from/package.json" "$from/package-lock.json" "$to/"
    # Not ready before the packages are in: an interrupted run starts again.
    if ! (cd "$to" && npm ci --silent --no-audit --no-fund --ignore-scripts) >&2; then
        rm -rf "$to"
        echo "access tokens of an identity provider are not tested: the npm package oidc-provider cannot be installed" >&2
        exit 0
    fi
    cp "$from/package-lock.json" "$to/installed"
fi
cp "$from/provider.mjs" "$to/"
echo "$PWD/$to/provider.mjs"

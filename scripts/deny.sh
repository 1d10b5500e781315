#!/bin/sh
# Licences, sources and advisories of every dependency. Installs the pinned cargo-deny once, into .cache/.
set -eu
cd "$(dirname "$0")/.."
version=0.20.2
tool=.cache/cargo-deny/bin/cargo-deny
if command -v cargo-deny >/dev/null 2>&1; then
    tool=$(command -v cargo-deny)
elif [ ! -x "$tool" ]; then
    cargo install --quiet --locked --root .cache/cargo-deny --version "$version" cargo-deny
fi
# The advisory database is a git repository; where it cannot be reached the other checks still hold.
# cargo-deny looks at every platform's dependencies, also those this machine does not build.
cargo fetch --quiet --locked
"$tool" --offline check --hide-inclusion-graph licenses bans sources

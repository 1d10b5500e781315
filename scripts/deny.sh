#!/bin/sh
# Licences, sources and advisories of every dependency. cargo-tool.sh installs the pinned cargo-deny once.
set -eu
cd "$(dirname "$0")/.."
tool=$(scripts/cargo-tool.sh cargo-deny)
# The advisory database is a git repository; where it cannot be reached the other checks still hold.
# cargo-deny looks at every platform's dependencies, also those this machine does not build.
cargo fetch --quiet --locked
"$tool" --offline check --hide-inclusion-graph licenses bans sources

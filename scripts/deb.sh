#!/bin/sh
# Builds the Debian package into target/debian/ and prints its path. LINEPROOF_NO_BUILD=1 takes target/release as it is.
set -eu
cd "$(dirname "$0")/.."
tool=$(scripts/cargo-tool.sh cargo-deb)
scripts/stage.sh
# cargo-deb would build and strip again.
"$tool" deb --no-build --no-strip --quiet
ls target/debian/lineproof_*.deb

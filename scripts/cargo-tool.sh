#!/bin/sh
# Prints the path of a cargo subcommand's program: the one on the PATH, else the pinned version, installed once into
# .cache/. Usage: scripts/cargo-tool.sh NAME
set -eu
cd "$(dirname "$0")/.."
case "${1:-}" in
cargo-cyclonedx) version=0.5.9 ;;
cargo-deb) version=3.8.0 ;;
cargo-deny) version=0.20.2 ;;
cargo-fuzz) version=0.13.2 ;;
*)
    echo "no version of ${1:-a tool} is pinned in $0" >&2
    exit 2
    ;;
esac

if command -v "$1" >/dev/null 2>&1; then
    command -v "$1"
    exit 0
fi
tool="$PWD/.cache/$1/bin/$1"
[ -x "$tool" ] || cargo install --quiet --locked --root ".cache/$1" --version "$version" "$1" >&2
echo "$tool"

#!/bin/sh
# Builds the release program twice, in two folders of different names, and compares the SHA-256: a stranger who builds
# this commit with the same toolchain gets the same bytes. Takes two whole builds, and 6 GB below $TMPDIR.
set -eu
cd "$(dirname "$0")/.."
commit=$(git rev-parse HEAD)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What is built is the commit, not what lies around.
build() {
    git clone --quiet --no-checkout . "$1/lineproof"
    git -C "$1/lineproof" checkout --quiet "$commit"
    # Paths of this machine would stand in panic messages and debug information: the sources, and the crates.
    (
        cd "$1/lineproof"
        SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) LINEPROOF_BUILD=$(git rev-parse --short=12 HEAD) \
            RUSTFLAGS="--remap-path-prefix=$PWD=/lineproof --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" \
            CARGO_TARGET_DIR="$1/target" cargo build --release --locked --quiet --bin lineproof
    )
    sha256sum <"$1/target/release/lineproof" | cut -d' ' -f1
}

mkdir -p "$work/one" "$work/another-folder"
first=$(build "$work/one")
echo "first   $first"
second=$(build "$work/another-folder")
echo "second  $second"
if [ "$first" = "$second" ]; then
    found=$(strings -n 6 "$work/one/target/release/lineproof" | grep -cF -e "$work" -e "${CARGO_HOME:-$HOME/.cargo}/" || true)
    echo "the same bytes: commit $commit, $(rustc -V); $found paths of this machine in it"
    exit 0
fi
mkdir -p target/reproducible
cp "$work/one/target/release/lineproof" target/reproducible/first
cp "$work/another-folder/target/release/lineproof" target/reproducible/second
cmp target/reproducible/first target/reproducible/second | head -1
echo "they differ: both are kept in target/reproducible/"
exit 1

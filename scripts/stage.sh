#!/bin/sh
# Gathers what a package carries in target/package/: the program without debug information, ONNX Runtime's library, and
# the licences that must go along. The Debian package and the container image are both made of it.
set -eu
cd "$(dirname "$0")/.."
out=target/package
host=$(rustc -vV | sed -n 's/^host: //p')

library=$(scripts/fetch-onnxruntime.sh --notices)
[ -n "${LINEPROOF_NO_BUILD:-}" ] || cargo build --release --locked
rm -rf "$out"
mkdir -p "$out"
objcopy --only-keep-debug target/release/lineproof "$out/lineproof.debug"
strip -o "$out/lineproof" target/release/lineproof
# Byte for byte as its maker published it, so that its digest can be compared.
install -m 644 "$library" "$out/"
install -m 644 "$(dirname "$library")/LICENSE" "$out/LICENSE.onnxruntime"
install -m 644 "$(dirname "$library")/ThirdPartyNotices.txt" "$out/NOTICES.onnxruntime"
ln -s ../lib/lineproof/lineproof "$out/usr-bin-lineproof"
cargo metadata --locked --format-version 1 --filter-platform "$host" | python3 scripts/third-party-notices.py >"$out/NOTICES.crates"
ls -l "$out" >&2

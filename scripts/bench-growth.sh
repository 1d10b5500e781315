#!/usr/bin/env bash
# How cost grows with the log: the bench `million` with a hundred thousand, one million and ten million decisions (or as
# many as named). Ten million need 20 GB of disk and about half an hour. What it prints is kept in target/bench/.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p target/bench target/tmp
export TMPDIR="$PWD/target/tmp"
ORT_DYLIB_PATH=$(scripts/fetch-onnxruntime.sh)
export ORT_DYLIB_PATH
cargo build --release --locked --benches --bins
for entries in ${*:-100000 1000000 10000000}; do
    echo
    echo "== $entries decisions, load $(cut -d' ' -f1 /proc/loadavg) =="
    cargo bench --quiet --locked --bench million -- --entries "$entries" --pages 100 | tee "target/bench/million-$entries.txt"
done
echo
echo "== proofs over ten million entries, without the index, load $(cut -d' ' -f1 /proc/loadavg) =="
cargo bench --quiet --locked --bench proofs | tee target/bench/proofs.txt

#!/bin/sh
# Compares what the service says of a hundred images with what the tools say that models are exported from (docs/skew.md).
set -eu
cd "$(dirname "$0")/.."
python=$(scripts/skew-env.sh)
if [ -z "$python" ]; then
    echo "skipped: no comparison without the tools"
    exit 0
fi
cargo build --locked
out=target/skew
rm -rf "$out"
nice -n 10 "$python" scripts/skew.py "$out" --lineproof target/debug/lineproof --datasets "${LINEPROOF_DATASETS:-../shared/datasets}"
LINEPROOF_SKEW="$PWD/$out" cargo test --locked --test it skew::a_hundred -- --nocapture

#!/usr/bin/env bash
# Lineproof beside other inference servers: benches/peers/README.md. Everything after the script's name goes to run.py.
set -euo pipefail
cd "$(dirname "$0")/.."
client=$(benches/peers/venvs.sh)
if [ -z "${LINEPROOF_BINARY:-}" ]; then
    cargo build --release --locked
    LINEPROOF_BINARY=target/release/lineproof
fi
export ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$(scripts/fetch-onnxruntime.sh)}
exec "$client" benches/peers/run.py --binary "$LINEPROOF_BINARY" "$@"

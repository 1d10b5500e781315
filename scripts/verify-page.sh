#!/bin/sh
# Holds the page src/core/export/verify.html against its sources, and in a browser against clients/verify-py.
#
# Needs npm; and for the browser Chromium and the cases that `cargo test --test agreement` kept. Says plainly what it skips.
set -eu
cd "$(dirname "$0")/.."
cases=${1:-}
if [ -d "$cases" ]; then cases=$(realpath "$cases"); else cases=; fi
if ! command -v npm >/dev/null; then
    echo "skipped: no npm, so the verification page was not built again"
    exit 0
fi
cd clients/verify-html
npm ci --silent --no-audit --no-fund
npm run --silent check
chromium=${CHROMIUM:-$(command -v chromium || true)}
if [ -z "$chromium" ]; then
    echo "skipped: no Chromium (Debian: chromium), so the verification page was not opened in a browser"
    exit 0
fi
if [ -z "$cases" ]; then
    echo "no cases: LINEPROOF_KEEP=FOLDER cargo test --test agreement makes them, FOLDER is this script's argument" >&2
    exit 1
fi
CHROMIUM=$chromium node test.mjs "$cases"

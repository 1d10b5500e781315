#!/usr/bin/env bash
# Runs every bench (or those named), one after the other, and keeps what they print in target/bench/.
#
# docs/performance.md says what the numbers mean. Numbers are ratios within one run, or have their own floor beside
# them; still, run this on a machine that does nothing else.
# A bench that fails ends it, although its output goes through tee.
set -euo pipefail
cd "$(dirname "$0")/.."
results=target/bench
mkdir -p "$results" target/tmp
# Some benches write to the temporary folder, which is often only memory.
export TMPDIR="$PWD/target/tmp"
ORT_DYLIB_PATH=$(scripts/fetch-onnxruntime.sh)
export ORT_DYLIB_PATH

if [ ! -f .cache/bench-model.onnx ]; then
    venv=.cache/venv-bench
    if [ ! -x "$venv/bin/python" ]; then
        python3 -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2
    fi
    "$venv/bin/python" scripts/bench-model.py .cache/bench-model.onnx
fi

machine() {
    echo "$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-), $(nproc) cores, $(free -g | awk '/^Mem:/ {print $2}') GiB"
    echo "Linux $(uname -r), $(df --output=source,fstype target | tail -1)"
    echo "$(date -u +%Y-%m-%dT%H:%MZ), commit $(git rev-parse --short=12 HEAD), load $(cut -d' ' -f1-3 /proc/loadavg)"
}
machine | tee "$results/machine.txt"

cargo build --release --locked --benches --bins
started=$(date +%s)
# What `decode` is compared with.
if [ -z "${LINEPROOF_BENCH_PYTHON:-}" ]; then
    venv=.cache/venv-bench-decode
    if [ ! -x "$venv/bin/python" ]; then
        python3 -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 opencv-python-headless==5.0.0.93 ||
            echo "OpenCV cannot be installed: decode measures ours alone" >&2
    fi
    LINEPROOF_BENCH_PYTHON="$PWD/$venv/bin/python"
fi
export LINEPROOF_BENCH_PYTHON

for bench in ${*:-end_to_end append archive audit kinds decode cameras million}; do
    echo
    echo "== $bench, load $(cut -d' ' -f1 /proc/loadavg) =="
    cargo bench --quiet --locked --bench "$bench" | tee "$results/$bench.txt"
done
echo
echo "all benches took $(($(date +%s) - started)) s; outputs are in $results/"

#!/bin/sh
# Writes the software bill of materials, CycloneDX 1.5, to target/sbom/lineproof.cdx.json: every crate that is linked
# into the program, ONNX Runtime's library, and the model in the binary. The same sources give the same bytes.
set -eu
cd "$(dirname "$0")/.."
tool=$(scripts/cargo-tool.sh cargo-cyclonedx)
library=$(scripts/fetch-onnxruntime.sh --notices)

# It writes beside Cargo.toml, and takes no other folder.
"$tool" cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --override-filename lineproof.cdx
mkdir -p target/sbom
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)} \
    python3 scripts/sbom.py lineproof.cdx.json "$library" target/sbom/lineproof.cdx.json
rm lineproof.cdx.json

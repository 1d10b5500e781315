#!/bin/sh
# Fetches the build of ONNX Runtime that has the OpenVINO execution provider, out of its PyPI wheel into .cache/openvino, checks the
# wheel, and prints the library's path: what ORT_DYLIB_PATH, or `onnxruntime` in lineproof.toml, is to name.
#
# Prints nothing where there is no such wheel or no way to a package index: tests then say that they were skipped.
set -eu

version=1.24.1
wheel_sha256=3007c803634cc69c6d52af1dea7ce729d9bb62b9a11070fd2f959119199007a8
folder=$(cd "$(dirname "$0")/.." && pwd)/.cache/openvino
library="$folder/onnxruntime/capi/libonnxruntime.so.$version"

if [ -f "$library" ]; then
    echo "$library"
    exit 0
fi
case "$(uname -s)-$(uname -m)" in
Linux-x86_64 | Linux-amd64) platform=manylinux_2_28_x86_64 ;;
*) echo "there is no wheel of onnxruntime-openvino for $(uname -s) on $(uname -m)" >&2; exit 0 ;;
esac

mkdir -p "$folder"
work=$(mktemp -d "$folder/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

echo "fetching onnxruntime-openvino $version for $platform, 84 MB" >&2
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.11 \
    --implementation cp --platform "$platform" --dest "$work" "onnxruntime-openvino==$version" >&2 || {
    echo "pip could not fetch onnxruntime-openvino $version" >&2
    exit 0
}
python3 - "$work/onnxruntime_openvino-$version-cp311-cp311-$platform.whl" "$wheel_sha256" "$work/unpacked" <<'PYTHON'
import hashlib, sys, zipfile
wheel, expected, target = sys.argv[1:]
with open(wheel, "rb") as file:
    found = hashlib.sha256(file.read()).hexdigest()
if found != expected:
    sys.exit(f"the wheel is not the pinned one: sha256 {found}, not {expected}")
with zipfile.ZipFile(wheel) as archive:
    archive.extractall(target, [name for name in archive.namelist() if name.startswith("onnxruntime/capi/lib")])
PYTHON

# Renamed into place whole, so that a broken-off fetch leaves nothing that looks like a library.
rm -rf "$folder/onnxruntime"
mv "$work/unpacked/onnxruntime" "$folder/onnxruntime"
echo "$library"

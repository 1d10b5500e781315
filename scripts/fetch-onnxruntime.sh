#!/bin/sh
# Fetches ONNX Runtime's library out of its PyPI wheel into .cache/onnxruntime, checks it, and prints its path.
#
# Does nothing when the right library is there already. A library named by ORT_DYLIB_PATH wins and is not checked:
# whoever sets it vouches for it. Needs python3 with pip; any Python 3 will do, the wheel is only unpacked.
#
# With --notices it fetches the pinned one whatever ORT_DYLIB_PATH says, and its licence and notices beside it: what a
# package of ours must carry.
set -eu

version=1.32.0
folder=$(cd "$(dirname "$0")/.." && pwd)/.cache/onnxruntime
library="$folder/libonnxruntime.so.$version"

notices=
[ "${1:-}" != --notices ] || notices=yes

if [ -n "${ORT_DYLIB_PATH:-}" ] && [ -z "$notices" ]; then
    [ -f "$ORT_DYLIB_PATH" ] || { echo "ORT_DYLIB_PATH names no file: $ORT_DYLIB_PATH" >&2; exit 1; }
    echo "$ORT_DYLIB_PATH"
    exit 0
fi

case "$(uname -s)-$(uname -m)" in
Linux-x86_64 | Linux-amd64)
    platform=manylinux_2_28_x86_64
    wheel_sha256=5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d
    library_sha256=6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f
    ;;
Linux-aarch64 | Linux-arm64)
    platform=manylinux_2_28_aarch64
    wheel_sha256=2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c
    library_sha256=49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a
    ;;
*)
    echo "no ONNX Runtime is pinned for $(uname -s) on $(uname -m); set ORT_DYLIB_PATH to one of version 1.30 or later" >&2
    exit 1
    ;;
esac

# Exit 0 when file $1 has the SHA-256 $2.
has_sha256() {
    [ -f "$1" ] && python3 - "$1" "$2" <<'PYTHON'
import hashlib, sys
with open(sys.argv[1], "rb") as file:
    digest = hashlib.sha256(file.read()).hexdigest()
sys.exit(0 if digest == sys.argv[2] else 1)
PYTHON
}

if has_sha256 "$library" "$library_sha256" && { [ -z "$notices" ] || [ -f "$folder/ThirdPartyNotices.txt" ]; }; then
    echo "$library"
    exit 0
fi

mkdir -p "$folder"
work=$(mktemp -d "$folder/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

echo "fetching onnxruntime $version for $platform" >&2
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.11 \
    --implementation cp --platform "$platform" --dest "$work" "onnxruntime==$version" >&2 || {
    echo "pip could not fetch onnxruntime $version; without a way to a package index, set ORT_DYLIB_PATH" >&2
    exit 1
}

wheel="$work/onnxruntime-$version-cp311-cp311-$platform.whl"
has_sha256 "$wheel" "$wheel_sha256" || { echo "the wheel is not the pinned one (sha256 $wheel_sha256)" >&2; exit 1; }
python3 - "$wheel" "$version" "$work" <<'PYTHON'
import sys, zipfile
wheel, version, folder = sys.argv[1:]
members = {"capi/libonnxruntime.so." + version: "library", "LICENSE": "LICENSE", "ThirdPartyNotices.txt": "notices"}
with zipfile.ZipFile(wheel) as archive:
    for member, name in members.items():
        with open(f"{folder}/{name}", "wb") as file:
            file.write(archive.read("onnxruntime/" + member))
PYTHON
has_sha256 "$work/library" "$library_sha256" || { echo "the library is not the pinned one (sha256 $library_sha256)" >&2; exit 1; }

# Renamed into place whole, so that a broken-off fetch leaves nothing that looks like a library.
mv "$work/LICENSE" "$folder/LICENSE"
mv "$work/notices" "$folder/ThirdPartyNotices.txt"
mv "$work/library" "$library"
echo "$library"

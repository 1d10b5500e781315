#!/usr/bin/env bash
# Makes the virtual environments of the peers and of the client below .cache/peers, models and frames as well; what is
# there is kept. Pinned in requirements/: every package, with what it pulls in. Installing takes minutes and 7 GB.
# A peer that can't be installed leaves a file `<peer>.failed` with the reason; only the client is needed to go on.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=benches/peers
into=.cache/peers
mkdir -p "$into"
python=${PYTHON:-python3.11}

install() { # peer, interpreter
    # Not ready before the packages are in: an interrupted run starts again.
    cmp -s "$here/requirements/$1.txt" "$into/$1/done" && return
    echo "installing $1" >&2
    rm -rf "${into:?}/$1" "$into/$1.failed"
    if "$2" -m venv "$into/$1" >"$into/$1.log" 2>&1 &&
        "$into/$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements/$1.txt" >>"$into/$1.log" 2>&1; then
        cp "$here/requirements/$1.txt" "$into/$1/done"
        rm "$into/$1.log"
    else
        tail -1 "$into/$1.log" >"$into/$1.failed"
        echo "$1 can't be installed: $(cat "$into/$1.failed")" >&2
    fi
}

install base "$python"
if [ -e "$into/base.failed" ]; then
    echo "the client of the peers' bench needs $here/requirements/base.txt; $python with venv and pip must be able to install it" >&2
    exit 1
fi
for peer in mlserver kserve litserve bentoml ray; do install $peer "$python"; done
# Its stub wants the libpython of the distribution; other builds of Python fail when it starts.
install pytriton /usr/bin/python3.11

client="$PWD/$into/base/bin/python"
[ -e "$into/models/tiny.onnx" ] || "$client" "$here/make_models.py" "$into/models"
[ -e "$into/models/images/part_19.jpg" ] || "$client" "$here/make_images.py" "$into/models/images" 20
mkdir -p "$into/proto"
"$client" -m grpc_tools.protoc -Iproto --python_out="$into/proto" proto/lineproof/v1/inspection.proto
echo "$client"

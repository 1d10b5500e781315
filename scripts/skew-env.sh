#!/bin/sh
# Prints the path of a Python that has the tools models are trained and exported with, for `make skew`; makes a venv for it once,
# below .cache/: some 7 GB, and minutes. Prints nothing where it cannot be installed, and says which package is missing.
set -eu
cd "$(dirname "$0")/.."
venv=.cache/venv-skew
packages="torch==2.15.0 torchvision==0.29.2 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6 pillow==13.0.0 blake3==1.0.11
opencv-python-headless==5.0.0.93 anomalib==2.7.0 ultralytics==8.4.190 timm==1.0.31 segmentation-models-pytorch==0.6.0"
if [ "$(cat "$venv/packages" 2>/dev/null)" != "$packages" ]; then
    rm -rf "$venv"
    # Not ready before every package is in: an interrupted run starts again.
    # shellcheck disable=SC2086
    if ! { python3 -m venv "$venv" && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check $packages; } >&2; then
        rm -rf "$venv"
        echo "no comparison with the tools' own inference: pip cannot install one of $packages; its message above says which" >&2
        exit 0
    fi
    echo "$packages" >"$venv/packages"
fi
echo "$PWD/$venv/bin/python"

#!/usr/bin/env python3
"""Completes the bill of materials that cargo-cyclonedx wrote: what is not a crate, and nothing of this machine.

    scripts/sbom.py FROM_CARGO ONNXRUNTIME_LIBRARY TARGET
"""

import datetime
import hashlib
import json
import os
import pathlib
import re
import sys
import uuid

MODEL = pathlib.Path("models/machined-surface/1.1.0/model.onnx")


def sha256(path):
    return {"alg": "SHA-256", "content": hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()}


def onnxruntime(library):
    """The library, by the package it came in: advisories are found by that name."""
    version = pathlib.Path(library).name.split(".so.")[1]
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/onnxruntime@{version}",
        "supplier": {"name": "Microsoft"},
        "name": "onnxruntime",
        "version": version,
        "description": "libonnxruntime, loaded at run time; the library of the package, without its Python part",
        "scope": "required",
        "hashes": [sha256(library)],
        "licenses": [{"expression": "MIT"}],
        "purl": f"pkg:pypi/onnxruntime@{version}",
        "cpe": f"cpe:2.3:a:microsoft:onnx_runtime:{version}:*:*:*:*:*:*:*",
    }


def model():
    return {
        "type": "machine-learning-model",
        "bom-ref": "model:machined-surface@1.1.0",
        "name": "machined-surface",
        "version": "1.1.0",
        "description": "The demonstration's model, compiled into the program; trained on simulated parts only",
        "hashes": [sha256(MODEL)],
        "licenses": [{"expression": "Apache-2.0"}],
    }


def without_paths(text):
    """cargo-cyclonedx names this project's own parts by where they lie on the disk."""
    text = re.sub(r'path\+file://[^"# ]*#(?:lineproof@)?([0-9][^" ]*)', r"pkg:cargo/lineproof@\1", text)
    return re.sub(r'\?download_url=file:[^"#]*', "", text)


def main(source, library, target):
    bom = json.loads(without_paths(pathlib.Path(source).read_text()))
    added = [onnxruntime(library), model()]
    bom["components"] = sorted(bom["components"] + added, key=lambda c: c["bom-ref"])
    root = bom["metadata"]["component"]["bom-ref"]
    for dependency in bom["dependencies"]:
        if dependency["ref"] == root:
            dependency["dependsOn"] = sorted(dependency.get("dependsOn", []) + [c["bom-ref"] for c in added])
    bom["dependencies"] = sorted(bom["dependencies"] + [{"ref": c["bom-ref"]} for c in added], key=lambda d: d["ref"])

    moment = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    bom["metadata"]["timestamp"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    # A serial number that follows from the content: the same sources, the same document.
    bom.pop("serialNumber", None)
    bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bom, sort_keys=True))}"
    text = json.dumps(bom, indent=2, sort_keys=True) + "\n"
    if "file:/" in text or os.getcwd() in text:
        sys.exit("the bill of materials names a folder of this machine")
    pathlib.Path(target).write_text(text)
    print(f"{target}: {len(bom['components'])} components, serial number {bom['serialNumber']}")


if __name__ == "__main__":
    main(*sys.argv[1:])

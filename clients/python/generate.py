"""Makes src/lineproof/v1 from ../../proto: python generate.py. With --check it only says whether they differ.

The result is committed, so that `pip install` needs no compiler of protobuf. Needs grpcio-tools and mypy-protobuf, in the
versions of scripts/pyclient-env.sh: other versions write other code.
"""

import importlib.resources
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "proto"
PACKAGE = Path("lineproof", "v1")


def generate(out: Path) -> None:
    """Writes modules and their types for every file of the package below `out`."""
    sources = sorted(str(path) for path in (PROTO / PACKAGE).glob("*.proto"))
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    to = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    plugins = [f"--plugin=protoc-gen-{kind}={Path(sys.executable).parent / f'protoc-gen-{kind}'}" for kind in ("mypy", "mypy_grpc")]
    if protoc.main(["protoc", f"-I{PROTO}", f"-I{well_known}", *plugins, *to, *sources]) != 0:
        sys.exit("protoc failed")


def contents(folder: Path) -> dict[str, bytes]:
    """The generated files of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*_pb2*.py*")}


def main() -> None:
    committed = HERE / "src" / PACKAGE
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        made = contents(Path(scratch, PACKAGE))
    before = contents(committed)
    differing = sorted(name for name in made.keys() | before.keys() if made.get(name) != before.get(name))
    if sys.argv[1:] == ["--check"]:
        if differing:
            sys.exit(f"not what proto/ gives; run generate.py: {', '.join(differing)}")
        return
    for name in before.keys() - made.keys():
        (committed / name).unlink()
    for name, text in made.items():
        (committed / name).write_bytes(text)
    print(f"{len(differing)} of {len(made)} files changed")


if __name__ == "__main__":
    main()

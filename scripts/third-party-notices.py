#!/usr/bin/env python3
"""Prints the licence texts of every crate in the released binary: most licences ask that they go along with it.

    cargo metadata --locked --format-version 1 --filter-platform TRIPLE | scripts/third-party-notices.py

Crates that only build or test it are left out. A text that several crates share is printed once.
"""

import json
import pathlib
import sys

NAMES = ("license", "licence", "copying", "copyright", "notice", "unlicense")


def shipped(metadata):
    """The packages that are linked into the binary, without this project's own."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    macros = {p["id"] for p in metadata["packages"] if any("proc-macro" in t["kind"] for t in p["targets"])}
    seen, waiting = set(), [root]
    while waiting:
        package = waiting.pop()
        if package in seen or package in macros:
            continue
        seen.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    packages = (p for p in metadata["packages"] if p["id"] in seen - {root})
    return sorted(packages, key=lambda p: (p["name"], p["version"]))


def texts(package):
    folder = pathlib.Path(package["manifest_path"]).parent
    files = (f for f in folder.iterdir() if f.is_file() and f.name.lower().startswith(NAMES))
    return [f.read_text(encoding="utf-8", errors="replace").strip() for f in sorted(files)]


def main():
    packages = shipped(json.load(sys.stdin))
    users = {}
    print("Crates in this program, and their licences.\n")
    for package in packages:
        name = f"{package['name']} {package['version']}"
        print(f"{name}: {package['license'] or 'see its text below'}")
        for text in texts(package):
            users.setdefault(text, []).append(name)
    for text, names in sorted(users.items(), key=lambda pair: pair[1]):
        print("\n" + "=" * 100 + "\n" + ", ".join(names) + "\n" + "-" * 100 + "\n" + text)


if __name__ == "__main__":
    main()

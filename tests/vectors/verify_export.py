#!/usr/bin/env python3
"""Checks an export with nothing of Lineproof, written from docs/spec/export.md alone.

    verify_export.py EXPORT.zip LOG.vkey

Needs Python 3.9 and the package `cryptography`. Steps 2 to 6 of the specification's list, without the ones that need
knowledge of decisions.
"""

import base64
import csv
import hashlib
import io
import json
import sys
import zipfile

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"


class Refused(Exception):
    """What is wrong."""


def need(condition, what):
    if not condition:
        raise Refused(what)


def sha256(data):
    return hashlib.sha256(data).digest()


def read_key(line):
    name, key_id, material = line.strip().split("+", 2)
    material = base64.b64decode(material, validate=True)
    need(len(material) == 33 and material[0] == 1, "the key is not Ed25519")
    need(sha256(name.encode() + b"\n" + material)[:4].hex() == key_id, "the key's id does not belong to it")
    return name, key_id, Ed25519PublicKey.from_public_bytes(material[1:])


def check_signature(key, signature, message, what):
    try:
        key.verify(signature, message)
    except InvalidSignature:
        raise Refused(f"the signature of the {what} does not verify") from None


def check_checkpoint(note, name, key_id, key):
    text, signatures = note.rsplit("\n\n", 1)
    text += "\n"
    ours = [line for line in signatures.splitlines() if line.startswith(f"\u2014 {name} ")]
    ours = [base64.b64decode(line.rsplit(" ", 1)[1], validate=True) for line in ours]
    ours = [signature for signature in ours if signature[:4].hex() == key_id]
    need(ours, "the key has not signed the checkpoint")
    check_signature(key, ours[0][4:], text.encode(), "checkpoint")
    origin, size, root = text.split("\n")[:3]
    need(origin == name, "the checkpoint is of another log")
    return origin, int(size), base64.b64decode(root, validate=True)


def check_manifest(envelope, name, key_id, key):
    envelope = json.loads(envelope)
    (signature,) = envelope["signatures"]
    payload = base64.b64decode(envelope["payload"], validate=True)
    need(envelope["payloadType"] == PAYLOAD_TYPE, "the manifest has another payload type")
    need(signature["keyid"] == f"{name}+{key_id}", "the manifest is signed by another key")
    pae = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode() + payload
    check_signature(key, base64.b64decode(signature["sig"], validate=True), pae, "manifest")
    statement = json.loads(payload)
    need(statement["_type"] == "https://in-toto.io/Statement/v1", "the manifest is no in-toto statement")
    need(statement["predicateType"] == "urn:lineproof:export:1", "the manifest is of another kind")
    return statement


def merkle_root(leaves, size, proof):
    proof = iter(proof)

    def root(a, b, chosen):
        if not chosen:
            return next(proof)
        if b - a == 1:
            return leaves[a]
        k = 1 << ((b - a - 1).bit_length() - 1)
        left = root(a, a + k, [index for index in chosen if index < a + k])
        right = root(a + k, b, [index for index in chosen if index >= a + k])
        return sha256(b"\x01" + left + right)

    try:
        computed = root(0, size, sorted(leaves))
    except StopIteration:
        raise Refused("the proof ends too early") from None
    need(next(proof, None) is None, "the proof is too long")
    return computed


def lines(data):
    need(not data or data.endswith(b"\n"), "a last line is cut off")
    return data.split(b"\n")[:-1]


def check_openings(openings, entries):
    for line in openings:
        opening = json.loads(line)
        commitment = sha256(bytes.fromhex(opening["salt"]) + opening["value"].encode())
        entry = json.loads(entries[opening["index"]])
        stated = entry.get("private", {}).get(opening["field"])
        need(stated == "sha256:" + commitment.hex(), f"the {opening['field']} of entry {opening['index']} is another")
    return len(openings)


def check_csv(data, entries):
    """The table says of each decision what its entry says; a spot check with a foreign CSV reader."""
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    decisions = {index: json.loads(entry) for index, entry in entries.items()}
    decisions = {index: entry for index, entry in decisions.items() if entry["kind"] == "decision"}
    need([int(row["index"]) for row in rows] == sorted(decisions), "decisions.csv lists other decisions")
    for row in rows:
        entry = decisions[int(row["index"])]
        need(row["verdict"] == entry["verdict"], f"decisions.csv has another verdict for entry {row['index']}")
        need(row["score"] == entry["scores"]["decision"].split(" ")[1], f"another score for entry {row['index']}")
    return len(rows)


def verify(path, vkey):
    name, key_id, key = read_key(vkey)
    with open(path, "rb") as file:
        raw = file.read()
    archive = zipfile.ZipFile(io.BytesIO(raw))
    names = archive.namelist()
    need(len(names) == len(set(names)), "the ZIP has a file twice")
    files = {member: archive.read(member) for member in names}

    origin, size, root = check_checkpoint(files["checkpoint"].decode(), name, key_id, key)
    statement = check_manifest(files["manifest.dsse.json"], name, key_id, key)
    predicate = statement["predicate"]
    stated = {"origin": origin, "root": "sha256:" + root.hex(), "size": size}
    need(predicate["checkpoint"] == stated, "the manifest speaks of another checkpoint")

    listed = [(subject["name"], subject["digest"]["sha256"]) for subject in statement["subject"]]
    found = [(member, sha256(files[member]).hex()) for member in names if member != "manifest.dsse.json"]
    need(found == listed and names[-1] == "manifest.dsse.json", "files are not those of the manifest")
    before = raw[: archive.getinfo("manifest.dsse.json").header_offset]
    need(predicate["container"] == "sha256:" + sha256(before).hex(), "the ZIP was changed")

    indexes = [int(line) for line in lines(files["entries.index.txt"])]
    bodies = lines(files["entries.jsonl"])
    need(len(indexes) == len(bodies), "indexes and entries differ in number")
    need(all(a < b for a, b in zip(indexes, indexes[1:])) and indexes[-1] < size, "the indexes are out of order")
    entries = dict(zip(indexes, bodies))
    leaves = {index: sha256(b"\x00" + body) for index, body in entries.items()}
    proof = [base64.b64decode(line, validate=True) for line in lines(files["entries.proof.txt"])]
    need(merkle_root(leaves, size, proof) == root, "the entries do not lead to the signed root")

    opened = check_openings(lines(files["private.jsonl"]), entries)
    decisions = check_csv(files["decisions.csv"], entries)
    return f"genuine: {decisions} decisions among {len(indexes)} of {size} entries of {origin}, {opened} values opened"


def main():
    path, vkey = sys.argv[1:3]
    with open(vkey, encoding="utf-8") as file:
        vkey = file.read()
    try:
        print(verify(path, vkey))
    except (Refused, ValueError, KeyError) as reason:
        print(f"REFUSED: {reason}")
        sys.exit(1)


if __name__ == "__main__":
    main()

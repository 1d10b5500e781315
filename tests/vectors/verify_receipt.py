"""Checks a COSE receipt (RFC 9942) with pycose and nothing of ours: verify_receipt.py RECEIPT ENTRY VKEY.

The tree is RFC 9162's. Prints the claims of the receipt; an error when it does not hold.
"""

import base64
import hashlib
import sys

import cbor2
from pycose.headers import KID, Algorithm
from pycose.keys import OKPKey
from pycose.keys.curves import Ed25519
from pycose.messages import Sign1Message


def root_of(entry: bytes, size: int, index: int, path: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.3.2, steps 1 to 5."""
    assert index < size, "the leaf lies outside the tree"
    place, last = index, size - 1
    node = hashlib.sha256(b"\0" + entry).digest()
    for sibling in path:
        assert last, "the path is too long"
        if place & 1 or place == last:
            node = hashlib.sha256(b"\1" + sibling + node).digest()
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            node = hashlib.sha256(b"\1" + node + sibling).digest()
        place, last = place >> 1, last >> 1
    assert last == 0, "the path is too short"
    return node


def main(receipt: str, entry: str, vkey: str) -> None:
    message = Sign1Message.decode(open(receipt, "rb").read())
    name, key_id, key = open(vkey, encoding="utf-8").read().strip().split("+", 2)
    header = cbor2.loads(message.phdr_encoded)
    assert header[395] == 1, "not RFC9162_SHA256"
    assert header[15][1] == name and message.get_attr(KID) == bytes.fromhex(key_id), "another log's"
    assert message.get_attr(Algorithm).fullname == "EDDSA"
    assert message.payload is None, "the payload is detached"
    (proof,) = message.uhdr[396][-1]
    size, index, path = cbor2.loads(proof)
    root = root_of(open(entry, "rb").read(), size, index, path)
    message.key = OKPKey(crv=Ed25519, x=base64.b64decode(key)[1:], optional_params={})
    assert message.verify_signature(detached_payload=root), "the signature does not fit"
    print(f"{header[15][2]} of {size} in {name}")


main(*sys.argv[1:])

#!/usr/bin/env python3
"""Makes the vectors of docs/spec/witness.md with nothing of Lineproof, from c2sp.org/tlog-cosignature and tlog-witness.

    make_witness.py docs/spec/vectors

Needs Python 3.9 and the package `cryptography`. The log is the one of lineage.json.
"""

import base64
import hashlib
import json
import pathlib
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

TIME = 1764043200


class Witness:
    def __init__(self, number):
        self.name = f"witness.example/w{number}"
        self.key = Ed25519PrivateKey.from_private_bytes(bytes([100 + number]) * 32)
        public = b"\x04" + self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.id = hashlib.sha256(self.name.encode() + b"\n" + public).digest()[:4]
        self.vkey = f"{self.name}+{self.id.hex()}+{base64.b64encode(public).decode()}"

    def cosign(self, text, time):
        signature = self.key.sign(f"cosignature/v1\ntime {time}\n{text}".encode())
        line = base64.b64encode(self.id + time.to_bytes(8, "big") + signature).decode()
        return f"\u2014 {self.name} {line}\n"


def main(folder):
    facts = json.loads((folder / "lineage.json").read_text())
    note = facts["checkpoint"]
    text = note[: note.rindex("\n\n") + 1]
    witnesses = {number: Witness(number) for number in (1, 2, 3)}
    cosigned = note + "".join(witnesses[number].cosign(text, TIME + number) for number in (1, 3))
    policy = (
        "# Two of three witnesses vouch for the plant's log.\n"
        f"log {facts['vkey']}\n"
        f"witness oem {witnesses[1].vkey} https://witness.example/\n"
        f"witness site2 {witnesses[2].vkey}\n"
        f"witness stick {witnesses[3].vkey}\n"
        "group two-of-three 2 oem site2 stick\n"
        "quorum two-of-three\n"
    )
    proof = "".join(base64.b64encode(bytes.fromhex(h)).decode() + "\n" for h in facts["consistency"]["proof"])
    passport = (folder / "lineage.tlog-proof").read_text()
    head = passport[: passport.index("\n\n") + 2]
    for name, content in {
        "witness.checkpoint": cosigned,
        "witness.policy": policy,
        "witness.request": f"old {facts['consistency']['old']}\n{proof}\n{note}",
        "witness.tlog-proof": head + cosigned,
    }.items():
        (folder / name).write_text(content)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

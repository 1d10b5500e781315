"""Makes and opens the pack of archive.md's vector, from the specification alone.

    python archive.py make      writes archive-1.pack beside this file
    python archive.py           opens it and prints what is in it

Needs the packages blake3 and cryptography.
"""

import struct
import sys
from pathlib import Path

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PACK = Path(__file__).with_name("archive-1.pack")
MASTER_KEY = bytes(range(32))
PLACE = "not_ok/2026-11-23/00000000"
PREFIX = b"LPIMPACK" + struct.pack(">II", 1, 0)


def xaes(key: bytes, nonce: bytes) -> tuple[AESGCM, bytes]:
    """c2sp.org/XAES-256-GCM: the derived key and the nonce's second half."""
    aes = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    l = int.from_bytes(aes.update(bytes(16)), "big")
    k1 = (l << 1) % 2**128 ^ (0x87 if l >> 127 else 0)
    blocks = [b"\0" + bytes([i]) + b"X\0" + nonce[:12] for i in (1, 2)]
    derived = b"".join(aes.update((int.from_bytes(b, "big") ^ k1).to_bytes(16, "big")) for b in blocks)
    return AESGCM(derived), nonce[12:]


def wrapping_key() -> bytes:
    return blake3(MASTER_KEY, derive_key_context="lineproof 2026-11-23 wrapping of image pack keys").digest()


def check(header: bytes, offset: int) -> bytes:
    return blake3(struct.pack(">Q", offset) + header).digest()[:12]


def record_aad(digest: bytes) -> bytes:
    return f"{PLACE} blake3:{digest.hex()}".encode()


def make() -> None:
    key, nonce = bytes(range(64, 96)), bytes(range(128, 152))
    gcm, rest = xaes(wrapping_key(), nonce)
    pack = PREFIX + nonce + gcm.encrypt(rest, key, PREFIX + PLACE.encode())
    for number, image in enumerate([b"", b"lineproof archive vector\n"]):
        digest, nonce = blake3(image).digest(), bytes([200 + number]) * 12
        header = b"LPIM" + struct.pack(">I", len(image)) + digest + nonce
        pack += header + check(header, len(pack)) + AESGCM(key).encrypt(nonce, image, record_aad(digest))
    PACK.write_bytes(pack)


def read() -> None:
    pack = PACK.read_bytes()
    assert pack[:16] == PREFIX
    gcm, rest = xaes(wrapping_key(), pack[16:40])
    key = gcm.decrypt(rest, pack[40:88], PREFIX + PLACE.encode())
    offset = 88
    while offset < len(pack):
        header = pack[offset : offset + 52]
        assert header[:4] == b"LPIM" and pack[offset + 52 : offset + 64] == check(header, offset)
        (length,) = struct.unpack(">I", header[4:8])
        digest, nonce = header[8:40], header[40:52]
        end = offset + 64 + length + 16
        image = AESGCM(key).decrypt(nonce, pack[offset + 64 : end], record_aad(digest))
        assert blake3(image).digest() == digest
        print(f"{PLACE}:{offset} blake3:{digest.hex()} {image!r}")
        offset = end


make() if sys.argv[1:] == ["make"] else read()

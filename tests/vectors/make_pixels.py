"""Makes docs/spec/vectors/pixels.json from docs/spec/pixels.md alone, without any code of the service.

    python tests/vectors/make_pixels.py > docs/spec/vectors/pixels.json      (needs blake3 1.0.11)
"""

import json
import struct

import blake3

CODES = {
    "Mono8": 0x01080001, "Mono10": 0x01100003, "Mono12": 0x01100005, "Mono16": 0x01100007, "RGB8": 0x02180014,
}
WIDTH, HEIGHT = 5, 3


def noise(count, limit):
    """Numbers below `limit` that anyone can make again."""
    return [(n * 2654435761 % 2**32) * limit >> 32 for n in range(1, count + 1)]


def packed(values, bits):
    """Bits of the values one after the other from the least significant bit of the first byte."""
    number = sum(value << (bits * place) for place, value in enumerate(values))
    return number.to_bytes((bits * len(values) + 7) // 8, "little")


def rows(values, per_row):
    return [values[at:at + per_row] for at in range(0, len(values), per_row)]


def strided(lines, stride):
    """Padding is 0xEE, so that a reader who takes it for pixels is found out. The last row has none."""
    return b"".join(line.ljust(stride, b"\xee") for line in lines[:-1]) + lines[-1]


def demosaic(mosaic, pattern):
    """The formula of the page, pixel by pixel."""
    def site(x, y):
        return pattern[2 * (y % 2) + x % 2]

    def at(x, y):
        x = -x if x < 0 else 2 * (WIDTH - 1) - x if x >= WIDTH else x
        y = -y if y < 0 else 2 * (HEIGHT - 1) - y if y >= HEIGHT else y
        return mosaic[y * WIDTH + x]

    out = []
    for y in range(HEIGHT):
        for x in range(WIDTH):
            for colour in "RGB":
                if site(x, y) == colour:
                    out.append(at(x, y))
                    continue
                near = [(dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if site(x + dx, y + dy) == colour]
                sum_ = sum(at(x + dx, y + dy) for dx, dy in near)
                out.append((sum_ + len(near) // 2) // len(near))
    return out


def vector(name, pixel_format, lines, stride, decoded, full_scale, values):
    pixels = bytes(values) if full_scale == 255 else struct.pack(f"<{len(values)}H", *values)
    head = b"lineproof pixels v1\n" + struct.pack("<IIII", CODES[decoded], full_scale, WIDTH, HEIGHT)
    return {
        "name": name, "pixel_format": pixel_format, "width_px": WIDTH, "height_px": HEIGHT, "stride_bytes": stride,
        "input": (strided(lines, stride) if stride else b"".join(lines)).hex(),
        "decoded_format": decoded, "full_scale": full_scale, "pixels": pixels.hex(),
        "digest": "blake3:" + blake3.blake3(head + pixels).hexdigest(),
    }


def main():
    vectors = []
    count = WIDTH * HEIGHT
    mono = noise(count, 256)
    vectors.append(vector("Mono8 without padding", "Mono8", [bytes(r) for r in rows(mono, WIDTH)], None, "Mono8", 255, mono))
    vectors.append(vector("Mono8 with stride 8", "Mono8", [bytes(r) for r in rows(mono, WIDTH)], 8, "Mono8", 255, mono))
    for decoded, full_scale in (("Mono10", 1023), ("Mono12", 4095), ("Mono16", 65535)):
        deep = noise(count, full_scale + 1)
        deep[0], deep[1] = full_scale, 0
        lines = [struct.pack(f"<{WIDTH}H", *row) for row in rows(deep, WIDTH)]
        vectors.append(vector(f"{decoded} with stride 12", decoded, lines, 12, decoded, full_scale, deep))
        if decoded != "Mono16":
            bits = full_scale.bit_length()
            lines = [packed(row, bits) for row in rows(deep, WIDTH)]
            name = f"{decoded}p, rows at whole bytes"
            vectors.append(vector(name, f"{decoded}p", lines, None, decoded, full_scale, deep))
            vectors.append(vector(f"{decoded}p with stride 9", f"{decoded}p", lines, 9, decoded, full_scale, deep))
    for name, pattern in (("BayerRG8", "RGGB"), ("BayerGR8", "GRBG"), ("BayerGB8", "GBRG"), ("BayerBG8", "BGGR")):
        lines = [bytes(row) for row in rows(mono, WIDTH)]
        vectors.append(vector(name, name, lines, None, "RGB8", 255, demosaic(mono, pattern)))
    rgb = noise(3 * count, 256)
    lines = [bytes(row) for row in rows(rgb, 3 * WIDTH)]
    vectors.append(vector("RGB8 with stride 16", "RGB8", lines, 16, "RGB8", 255, rgb))
    swapped = [value for at in range(0, 3 * count, 3) for value in rgb[at:at + 3][::-1]]
    vectors.append(vector("BGR8", "BGR8", lines, None, "RGB8", 255, swapped))
    print(json.dumps(vectors, indent=1))


main()

"""An image to Lineproof by the Open Inference Protocol, for programs that have tritonclient already.

    python open_inference.py part.png --server 127.0.0.1:7443 --model machined-surface --serial SN-00042

docs/open-inference.md says what else can be sent and asked for. Ends with 0 when there is a verdict, 1 when there is none.
Needs `tritonclient[grpc]` and numpy, not this package, and BLAKE3 only so that damage on the way is noticed.
"""

import argparse
import sys
from pathlib import Path

import numpy
import tritonclient.grpc as triton
from blake3 import blake3
from tritonclient.utils import InferenceServerException


def main() -> int:
    parser = argparse.ArgumentParser(description="Send one image by the Open Inference Protocol.")
    parser.add_argument("image", type=Path, help="a PNG, JPEG, TIFF or BMP file")
    parser.add_argument("--server", default="127.0.0.1:7443", help="HOST:PORT")
    parser.add_argument("--model", default="machined-surface", help="name of the recipe")
    parser.add_argument("--serial", required=True, help="serial number of the part")
    args = parser.parse_args()

    image = args.image.read_bytes()
    # Hashed with the name, as lineproof.frame_id_of does: the same file is the same frame, also when it is sent again.
    frame_id = blake3(args.image.name.encode() + b"\0" + image).hexdigest()[:32]
    tensor = triton.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(numpy.array([image], dtype=numpy.object_))
    parameters = {"serial": args.serial, "image_blake3": blake3(image).hexdigest()}
    client = triton.InferenceServerClient(args.server)
    try:
        answer = client.infer(args.model, [tensor], request_id=frame_id, parameters=parameters, client_timeout=30.0)
    except InferenceServerException as error:
        print(f"no verdict: {error.status()}: {error.message()}", file=sys.stderr)
        return 1
    finally:
        client.close()
    for label, score in zip(answer.as_numpy("labels"), answer.as_numpy("scores"), strict=True):
        print(f"  {label.decode():<16} {score:.3f}")
    print(f"{answer.as_numpy('verdict')[0].decode()}  entry {answer.as_numpy('entry_index')[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

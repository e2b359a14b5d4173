"""Classify one handwritten digit through the fleet: ``python scripts/first_inference.py``.

The picture is one that the model was not trained on (``model_repository/digits/samples.json``). It is an
ordinary tritonclient program: nothing here knows that several servers stand behind the address.
Exit code 1, with the reason, when the answer does not come or is wrong.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

SAMPLES = Path(__file__).resolve().parent.parent / "model_repository" / "digits" / "samples.json"
INK = " .:-=+*#%@"  # from paper (0) to ink (16)
TIMEOUT_S = 10.0
WARM_UP = 3  # first calls open connections and grow buffers: not what a later call takes


def picture(image: list[int]) -> list[str]:
    """The 8x8 pixels as eight lines of text, each pixel twice as wide as high letters are."""
    shades = [INK[pixel * (len(INK) - 1) // 16] * 2 for pixel in image]
    return ["".join(shades[row : row + 8]) for row in range(0, 64, 8)]


def classify(client: triton.InferenceServerClient, image: list[int]) -> tuple[int, float, float]:
    """The digit, its probability, and the seconds the call took."""
    tensor = triton.InferInput("IMAGE", [1, 64], "FP32")
    tensor.set_data_from_numpy(np.array([image], np.float32))
    for _ in range(WARM_UP):
        client.infer("digits", [tensor], client_timeout=TIMEOUT_S)
    began = time.perf_counter()
    result = client.infer("digits", [tensor], client_timeout=TIMEOUT_S)
    took = time.perf_counter() - began
    label = int(result.as_numpy("LABEL").item())
    return label, float(result.as_numpy("SCORES")[0, label]), took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    default = f"127.0.0.1:{os.environ.get('TRITONFLEET_PORT') or 8001}"
    parser.add_argument("--address", default=default, help="the fleet's router (default: %(default)s)")
    parser.add_argument("--digit", type=int, default=2, choices=range(10), metavar="0..9", help="which one")
    arguments = parser.parse_args()
    sample = next(s for s in json.loads(SAMPLES.read_text()) if s["label"] == arguments.digit)
    try:
        with triton.InferenceServerClient(arguments.address) as client:
            label, score, took = classify(client, sample["image"])
    except triton.InferenceServerException as error:
        print(f"no answer from {arguments.address}: {error.message()}", file=sys.stderr)
        print("is the fleet up?  tritonfleet ps", file=sys.stderr)
        return 1
    print()
    print("\n".join("    " + line for line in picture(sample["image"])))
    print()
    how = f"probability {score:.3f}, in {took * 1000:.1f} ms, through {arguments.address}"
    print(f"  digits says: {label}  ({how})")
    if label != sample["label"]:
        print(f"that is wrong: the picture shows a {sample['label']}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

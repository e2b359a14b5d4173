"""The ordinary client over mutual TLS; and what one without a certificate gets to hear."""

import os
import sys
from pathlib import Path

import grpc
import numpy as np
import tritonclient.grpc as triton

FOLDER = Path(__file__).parent / os.environ.get("EXAMPLE_CERTIFICATES", "certificates")
ADDRESS = f"127.0.0.1:{os.environ.get('TRITONFLEET_PORT') or 8001}"


def main() -> int:
    tensor = triton.InferInput("INPUT0", [5], "UINT8")
    tensor.set_data_from_numpy(np.frombuffer(b"hello", np.uint8))
    own = {"private_key": str(FOLDER / "client.key"), "certificate_chain": str(FOLDER / "client.pem")}
    with triton.InferenceServerClient(
        ADDRESS, ssl=True, root_certificates=str(FOLDER / "ca.pem"), **own
    ) as client:
        answer = client.infer("echo", [tensor]).as_numpy("OUTPUT0").tobytes()
        print(f"with a certificate: {answer.decode()}")
    with triton.InferenceServerClient(ADDRESS, ssl=True, root_certificates=str(FOLDER / "ca.pem")) as client:
        try:
            client.infer("echo", [tensor], client_timeout=10)
        except triton.InferenceServerException as error:
            print(f"without one: {error.status()}")
            refused = str(grpc.StatusCode.UNAVAILABLE) in str(error.status())
    return 0 if answer == b"hello" and refused else 1


if __name__ == "__main__":
    sys.exit(main())

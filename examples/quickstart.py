"""A client in ten lines. Nothing in it knows that several Tritons stand behind the address."""

import os

import numpy as np
import tritonclient.grpc as triton

with triton.InferenceServerClient(f"127.0.0.1:{os.environ.get('TRITONFLEET_PORT') or 8001}") as client:
    for text in ("a short one", "and one that is a little longer, with a comma"):
        tensor = triton.InferInput("TEXT", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text.encode()]], np.object_))
        answer = client.infer("text_work", [tensor])
        print(answer.as_numpy("TOKENS").item(), "tokens, by", answer.as_numpy("REPLICA").item().decode())

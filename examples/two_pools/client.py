"""One client, one address, models of two pools."""

import os
import sys

import numpy as np
import tritonclient.grpc as triton


def tensor(name: str, values: np.ndarray, kind: str) -> triton.InferInput:
    found = triton.InferInput(name, list(values.shape), kind)
    found.set_data_from_numpy(values)
    return found


def main() -> int:
    text = tensor("TEXT", np.array([[b"how many words are these?"]], np.object_), "BYTES")
    data = tensor("INPUT0", np.arange(9, dtype=np.uint8), "UINT8")
    replicas: dict[str, set[str]] = {"text_work": set(), "echo": set()}
    with triton.InferenceServerClient(f"127.0.0.1:{os.environ.get('TRITONFLEET_PORT') or 8001}") as client:
        for _ in range(10):
            for model, given in (("text_work", text), ("echo", data)):
                name = client.infer(model, [given]).as_numpy("REPLICA").reshape(-1)[0].decode()
                replicas[model].add(name.rpartition(".")[0])
        index = {entry.name for entry in client.get_model_repository_index().models}
    print("models behind the one address:", ", ".join(sorted(index)))
    for model, names in replicas.items():
        print(f"{model} is answered by {', '.join(sorted(names))}")
    return 0 if replicas == {"text_work": {"text-0", "text-1"}, "echo": {"pictures-0"}} else 1


if __name__ == "__main__":
    sys.exit(main())

"""Are two sentences alike? Embeddings by MiniLM through two replicas; short and long texts at a time.

Exit code 1 unless each sentence is nearer to its paraphrase than to any other.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tritonclient.grpc as triton

PAIRS = (
    ("A man is eating food.", "Someone is having a meal."),
    ("The stock market fell sharply today.", "Share prices dropped a lot this afternoon."),
    ("How do I reset my password?", "I forgot my login and need a new one."),
    (
        "The river had risen over night, and in the morning the water stood in the rooms of the old mill.",
        "After hours of rain the ground floor of the historic mill was flooded by the stream beside it.",
    ),
)


def embed(client: triton.InferenceServerClient, text: str) -> tuple[np.ndarray, int, str]:
    """The embedding, how many tokens the text has, and which replica computed it."""
    tensor = triton.InferInput("TEXT", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[text.encode()]], np.object_))
    answer = client.infer("minilm", [tensor])
    replica = answer.as_numpy("REPLICA").item().decode()
    return answer.as_numpy("EMBEDDING")[0], int(answer.as_numpy("TOKENS").item()), replica


def main() -> int:
    texts = [text for pair in PAIRS for text in pair]
    address = f"127.0.0.1:{os.environ.get('TRITONFLEET_PORT') or 8001}"
    with triton.InferenceServerClient(address) as client, ThreadPoolExecutor(len(texts)) as threads:
        found = list(threads.map(lambda text: embed(client, text), texts))
    alike = np.array([embedding for embedding, _, _ in found])
    alike = alike @ alike.T
    right = True
    for index, text in enumerate(texts):
        other = index ^ 1
        nearest = max(
            (at for at in range(len(texts)) if at != index), key=lambda at, row=index: alike[row, at]
        )
        strangers = max(alike[index, at] for at in range(len(texts)) if at not in (index, other))
        print(f"{found[index][1]:3} tokens on {found[index][2]}: {text[:60]}")
        print(f"      its paraphrase {alike[index, other]:.2f}, the nearest of the others {strangers:.2f}")
        right = right and nearest == other
    replicas = {replica for _, _, replica in found}
    print(
        f"answered by {len(replicas)} replicas; "
        + ("all are nearest to their paraphrase" if right else "wrong")
    )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())

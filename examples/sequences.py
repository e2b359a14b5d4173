"""Three sequences at a time through a fleet: each stays on the replica that holds its state.

The model `accumulator` adds up the numbers of a sequence. A client says where one begins and ends; where it
lives is the router's matter.
"""

import os
import sys

import numpy as np
import tritonclient.grpc as triton

SEQUENCES = {101: [1, 2, 3], 102: [10, 20, 30], 103: [5, -5, 7]}


def step(client: triton.InferenceServerClient, sequence: int, at: int) -> tuple[int, str]:
    """Send number ``at`` of a sequence: the sum so far, and who answered."""
    tensor = triton.InferInput("INPUT", [1, 1], "INT32")
    tensor.set_data_from_numpy(np.array([[SEQUENCES[sequence][at]]], np.int32))
    last = at + 1 == len(SEQUENCES[sequence])
    answer = client.infer(
        "accumulator", [tensor], sequence_id=sequence, sequence_start=at == 0, sequence_end=last
    )
    return int(answer.as_numpy("SUM").item()), answer.as_numpy("REPLICA").item().decode()


def main() -> int:
    address = f"127.0.0.1:{os.environ.get('TRITONFLEET_PORT') or 8001}"
    homes: dict[int, set[str]] = {sequence: set() for sequence in SEQUENCES}
    with triton.InferenceServerClient(address) as client:
        for at in range(3):  # the sequences take turns
            for sequence, numbers in SEQUENCES.items():
                total, replica = step(client, sequence, at)
                homes[sequence].add(replica)
                print(f"sequence {sequence}: + {numbers[at]:3} = {total:3}  on {replica}")
                if total != sum(numbers[: at + 1]):
                    print("that is wrong: its state was somewhere else", file=sys.stderr)
                    return 1
    stayed = all(len(replicas) == 1 for replicas in homes.values())
    print("each sequence stayed on its replica" if stayed else "a sequence moved")
    return 0 if stayed else 1


if __name__ == "__main__":
    sys.exit(main())

"""Load by h2load, with the proof that every answer was the right one.

h2load knows nothing of gRPC: a failed call is HTTP 200 too, with its status in the trailers and no
body. So the bytes of all bodies are compared with what as many right answers have.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import service_pb2 as pb

SERVICE = "inference.GRPCInferenceService"
TIMEOUT_S = 600


@dataclass(frozen=True)
class Request:
    """One kind of request: its method, its framed message, and the size of a right answer's framed body."""

    method: str
    body: bytes
    answer_bytes: int


@dataclass(frozen=True)
class Outcome:
    seconds: float
    requests_per_s: float


def framed(message: bytes) -> bytes:
    """A message with gRPC's five-byte prefix: not compressed, length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def model_metadata(model: str) -> bytes:
    return framed(pb.ModelMetadataRequest(name=model).SerializeToString())


def echo(size: int) -> bytes:
    """An inference request to `echo` with ``size`` bytes, answered by as many."""
    request = pb.ModelInferRequest(model_name="echo", raw_input_contents=[bytes(size)])
    request.inputs.add(name="INPUT0", datatype="UINT8", shape=[size])
    request.outputs.add(name="OUTPUT0")
    return framed(request.SerializeToString())


def require_h2load() -> str:
    found = shutil.which("h2load")
    if found is None:
        sys.exit(
            "the benchmark needs h2load: install nghttp2-client (Debian, Ubuntu) or nghttp2 (Fedora, brew)"
        )
    return found


def run(
    address: str,
    request: Request,
    folder: Path,
    *,
    requests: int,
    connections: int,
    streams: int,
    threads: int = 1,
) -> Outcome:
    """Send ``requests`` over ``connections``, ``streams`` at a time on each, by ``threads`` of h2load. Raises
    RuntimeError unless every one of them was answered rightly."""
    body = folder / f"{request.method}-{len(request.body)}.bin"
    body.write_bytes(request.body)
    command = [
        require_h2load(),
        f"--requests={requests}",
        f"--clients={connections}",
        f"--max-concurrent-streams={streams}",
        f"--threads={threads}",
        "--window-bits=24",
        "--connection-window-bits=26",
        f"--data={body}",
        "--header=content-type: application/grpc",
        "--header=te: trailers",
        f"http://{address}/{SERVICE}/{request.method}",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    try:
        return parse(result.stdout, requests, request.answer_bytes)
    except ValueError as error:
        text = result.stdout + result.stderr
        raise RuntimeError(
            f"{request.method} to {address} was not answered rightly: {error}\n{text}"
        ) from None


def parse(text: str, requests: int, answer_bytes: int) -> Outcome:
    """h2load's report. Raises ValueError for one that is not all success."""
    (succeeded,) = found(r"requests: .* (\d+) succeeded", text)
    if int(succeeded) != requests:
        raise ValueError(f"{succeeded} of {requests} succeeded")
    (data,) = found(r"traffic: .*\((\d+)\) data$", text)
    if int(data) != requests * answer_bytes:
        raise ValueError(f"{data} bytes in all bodies instead of {requests} x {answer_bytes}")
    seconds, unit, rate = found(r"finished in ([\d.]+)(us|ms|s|m), ([\d.]+) req/s", text)
    return Outcome(float(seconds) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[unit], float(rate))


def found(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise ValueError("h2load's report is not as expected")
    return match.groups()

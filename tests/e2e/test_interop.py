"""Clients that share no code with the router: grpclib (Python, on `h2`), grpc-js (JavaScript), nghttp and
h2load (C, nghttp2), curl. grpcio is what tritonclient is made of: the other tests use it."""

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import grpclib.client
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from running_fleet import RunningFleet, running_fleet
from tritonclient.grpc import service_pb2 as pb

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("interop")]

SERVICE = "/inference.GRPCInferenceService/"
GRPC_JS = Path(__file__).parent / "grpc_js"
TRUE = b"\0\0\0\0\2\x08\1"  # a framed message whose field 1 is true


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    with running_fleet(
        tmp_path_factory.mktemp("interop"), replicas={"min": 1, "initial": 1, "max": 1}
    ) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def unknown_model(fleet: RunningFleet) -> triton.InferenceServerException:
    """What tritonclient is told about a model that does not exist."""
    with triton.InferenceServerClient(fleet.address) as client:
        given = triton.InferInput("INPUT0", [1], "UINT8")
        given.set_data_from_numpy(np.zeros(1, np.uint8))
        with pytest.raises(triton.InferenceServerException) as caught:
            client.infer("nonesuch", [given])
    return caught.value


def infer(model: str, payload: bytes) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[payload])
    request.inputs.add(name="INPUT0", datatype="UINT8", shape=[len(payload)])
    request.outputs.add(name="OUTPUT0")
    return request


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


# ---------------------------------------------------------------- grpclib


class Grpclib:
    """The calls of these tests by grpclib."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.channel = grpclib.client.Channel(host, int(port))
        self.infer = grpclib.client.UnaryUnaryMethod(
            self.channel, f"{SERVICE}ModelInfer", pb.ModelInferRequest, pb.ModelInferResponse
        )

    def stream(self) -> grpclib.client.Stream[Any, Any]:
        return self.channel.request(
            f"{SERVICE}ModelStreamInfer",
            Cardinality.STREAM_STREAM,
            pb.ModelInferRequest,
            pb.ModelStreamInferResponse,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.channel.close()


@pytest.mark.parametrize("size", [1, 65_535, 3_000_000])
async def test_grpclib_gets_back_what_it_sent(fleet: RunningFleet, size: int) -> None:
    payload = os.urandom(size)
    async with Grpclib(fleet.address) as client:
        answers = await asyncio.gather(*(client.infer(infer("echo", payload)) for _ in range(3)))
    assert [answer.raw_output_contents[0] for answer in answers] == [payload] * 3


async def test_grpclib_is_told_what_tritonclient_is_told(
    fleet: RunningFleet, unknown_model: triton.InferenceServerException
) -> None:
    async with Grpclib(fleet.address) as client:
        with pytest.raises(GRPCError) as caught:
            await client.infer(infer("nonesuch", b"x"))
    assert f"StatusCode.{caught.value.status.name}" == unknown_model.status()
    assert caught.value.message == unknown_model.message()


async def test_grpclib_streams_in_turns(fleet: RunningFleet) -> None:
    async with Grpclib(fleet.address) as client, client.stream() as stream:
        for number in range(5):
            await stream.send_message(infer("echo", bytes([number])), end=number == 4)
            answer = await stream.recv_message()
            assert answer is not None
            assert answer.infer_response.raw_output_contents[0] == bytes([number])
        assert await stream.recv_message() is None


async def test_grpclib_cancels_and_goes_on(fleet: RunningFleet) -> None:
    async with Grpclib(fleet.address) as client:
        async with client.stream() as stream:
            await stream.send_message(infer("echo", b"x"))
            assert await stream.recv_message() is not None
            await stream.cancel()
        answer = await client.infer(infer("echo", b"after"))
    assert answer.raw_output_contents[0] == b"after"


async def test_grpclibs_deadline_holds(fleet: RunningFleet) -> None:
    """A stream that is never ended by its client ends by its deadline, here or there."""
    async with Grpclib(fleet.address) as client:
        stream = client.channel.request(
            f"{SERVICE}ModelStreamInfer",
            Cardinality.STREAM_STREAM,
            pb.ModelInferRequest,
            pb.ModelStreamInferResponse,
            timeout=0.5,
        )
        with pytest.raises((GRPCError, StreamTerminatedError, asyncio.TimeoutError)) as caught:
            await _ask_and_wait_on(stream)
        if isinstance(caught.value, GRPCError):
            assert caught.value.status is Status.DEADLINE_EXCEEDED
        assert (await client.infer(infer("echo", b"after"))).raw_output_contents[0] == b"after"


async def _ask_and_wait_on(stream: grpclib.client.Stream[Any, Any]) -> None:
    async with stream:
        await stream.send_message(infer("echo", b"x"))
        assert await stream.recv_message() is not None
        await stream.recv_message()


# ---------------------------------------------------------------- grpc-js


def why_no_grpc_js() -> str:
    if shutil.which("node") is None:
        return "node is not installed"
    if not (GRPC_JS / "node_modules" / "@grpc" / "grpc-js").is_dir():
        return "grpc-js is not installed: npm install --no-package-lock --prefix tests/e2e/grpc_js"
    return ""


@pytest.mark.peer
@pytest.mark.skipif(bool(why_no_grpc_js()), reason=why_no_grpc_js())
def test_grpc_js(fleet: RunningFleet, unknown_model: triton.InferenceServerException) -> None:
    """Unary calls of three sizes, an error, a deadline, streams that end and that are cancelled, all at once
    on one connection."""
    payloads = [os.urandom(size) for size in (1, 65_535, 3_000_000)]
    steps = [bytes([number]) for number in range(5)]
    unary = [{"path": f"{SERVICE}ModelInfer", "messages": [encoded(infer("echo", p))]} for p in payloads]
    error = {"path": f"{SERVICE}ModelInfer", "messages": [encoded(infer("nonesuch", b"x"))]}
    stream: dict[str, Any] = {
        "path": f"{SERVICE}ModelStreamInfer",
        "stream": True,
        "messages": [encoded(infer("echo", step)) for step in steps],
    }
    calls = [*unary, error, stream, stream | {"cancelAfter": 2}, stream | {"deadlineMs": 10_000}]
    result = subprocess.run(
        ["node", "client.js"],
        cwd=GRPC_JS,
        input=json.dumps({"address": fleet.address, "calls": calls}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    *good, bad, whole, cancelled, timed = json.loads(result.stdout)
    assert [report["code"] for report in good] == [0, 0, 0], good
    given = [pb.ModelInferResponse.FromString(base64.b64decode(report["answers"][0])) for report in good]
    assert [answer.raw_output_contents[0] for answer in given] == payloads
    assert (f"StatusCode.{Status(bad['code']).name}", bad["details"]) == (
        unknown_model.status(),
        unknown_model.message(),
    )
    assert (whole["code"], [streamed(answer) for answer in whole["answers"]]) == (0, steps)
    assert (cancelled["code"], len(cancelled["answers"])) == (Status.CANCELLED.value, 2)
    assert (timed["code"], len(timed["answers"])) == (0, 5)


def encoded(request: pb.ModelInferRequest) -> str:
    return base64.b64encode(request.SerializeToString()).decode()


def streamed(answer: str) -> bytes:
    response = pb.ModelStreamInferResponse.FromString(base64.b64decode(answer))
    assert response.error_message == ""
    return bytes(response.infer_response.raw_output_contents[0])


# ---------------------------------------------------------------- command lines


HEADERS = ["-H", "content-type: application/grpc", "-H", "te: trailers"]


def run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture
def question(tmp_path: Path) -> str:
    """ModelReady of `echo`, as a file."""
    path = tmp_path / "question.bin"
    path.write_bytes(framed(pb.ModelReadyRequest(name="echo").SerializeToString()))
    return str(path)


def curl_speaks_http2() -> bool:
    if shutil.which("curl") is None:
        return False
    version = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=False)
    return "HTTP2" in version.stdout


@pytest.mark.peer
@pytest.mark.skipif(not curl_speaks_http2(), reason="no curl with HTTP/2: apt-get install curl")
def test_curl(fleet: RunningFleet, question: str, tmp_path: Path) -> None:
    answer = tmp_path / "answer.bin"
    head = run(
        [
            "curl",
            "-sS",
            "--http2-prior-knowledge",
            *HEADERS,
            "--data-binary",
            f"@{question}",
            "-D",
            "-",
            "-o",
            str(answer),
            f"http://{fleet.address}{SERVICE}ModelReady",
        ]
    )
    assert answer.read_bytes() == TRUE
    assert re.search(r"^HTTP/2 200", head)
    assert re.search(r"^grpc-status: 0\s*$", head, re.MULTILINE), "the trailers"


@pytest.mark.peer
@pytest.mark.skipif(not curl_speaks_http2(), reason="no curl with HTTP/2: apt-get install curl")
def test_curl_without_grpc_is_told_in_words(fleet: RunningFleet) -> None:
    said = run(["curl", "-sS", "--http2-prior-knowledge", "-w", "%{http_code}", f"http://{fleet.address}/"])
    assert said == "tritonfleet: this address speaks gRPC: POST with content-type application/grpc\n405"


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("nghttp") is None, reason="nghttp (nghttp2-client) is not installed")
def test_nghttp(fleet: RunningFleet, question: str) -> None:
    """With its padding and its own window sizes, which no gRPC client uses."""
    said = run(
        [
            "nghttp",
            "-v",
            "--no-dep",
            "--padding=37",
            "--window-bits=16",
            *HEADERS,
            "-d",
            question,
            f"http://{fleet.address}{SERVICE}ModelReady",
        ]
    )
    assert re.search(r"recv \(stream_id=\d+\) :status: 200", said), said
    assert re.search(r"recv \(stream_id=\d+\) grpc-status: 0", said), said
    assert re.search(r"recv DATA frame <length=7,", said), said


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load (nghttp2-client) is not installed")
def test_h2load(fleet: RunningFleet, tmp_path: Path) -> None:
    """600 inferences over 3 connections, all answered with what an answer has of bytes."""
    request = infer("echo", bytes(1000))
    body = tmp_path / "request.bin"
    body.write_bytes(framed(request.SerializeToString()))
    with triton.InferenceServerClient(fleet.address) as client:
        given = triton.InferInput("INPUT0", [1000], "UINT8")
        given.set_data_from_numpy(np.zeros(1000, np.uint8))
        size = (
            5
            + client.infer("echo", [given], outputs=[triton.InferRequestedOutput("OUTPUT0")])
            .get_response()
            .ByteSize()
        )
    said = run(
        [
            "h2load",
            "-n600",
            "-c3",
            "-m10",
            f"--data={body}",
            *HEADERS,
            f"http://{fleet.address}{SERVICE}ModelInfer",
        ]
    )
    assert "600 succeeded, 0 failed, 0 errored, 0 timeout" in said
    assert f"({600 * size}) data" in said

"""Conversations about inference: unary, in streams, in sequences, with everything that can be wrong."""

import contextlib
import os
from typing import Any

import grpc
import numpy as np
from conversation import Conversation, add, digits, echo, infer, plain, repeat
from talks import talk
from tritonclient.grpc import service_pb2


@talk
def inference(server: Conversation) -> None:
    server.ask("ModelInfer", digits(1))
    server.ask("ModelInfer", digits(64))
    request = echo(b"x" * 100_000)
    request.id = "my id"
    assert server.ask("ModelInfer", request).id == "my id"
    request.model_version = "1"
    server.ask("ModelInfer", request)


@talk
def inference_that_cannot_be(server: Conversation) -> None:
    server.ask("ModelInfer", digits(65))
    server.ask("ModelInfer", infer("none", ("IMAGE", np.zeros((1, 64), np.float32), "FP32")))
    server.ask("ModelInfer", infer("digits", ("PICTURE", np.zeros((1, 64), np.float32), "FP32")))
    server.ask("ModelInfer", infer("digits", ("IMAGE", np.zeros((1, 63), np.float32), "FP32")))
    server.ask("ModelInfer", infer("digits", ("IMAGE", np.zeros((1, 64), np.int32), "INT32")))
    server.ask("ModelInfer", infer("digits"))
    server.ask(
        "ModelInfer", infer("digits", ("IMAGE", np.zeros((1, 64), np.float32), "FP32"), outputs=("NO",))
    )
    for version in ("7", "x"):
        request = digits()
        request.model_version = version
        server.ask("ModelInfer", request)
    server.ask("ModelInfer", digits(triton_of_mine=1))
    server.ask("ModelInfer", repeat(1, 2))
    server.ask("ModelInfer", service_pb2.ModelInferRequest())


@talk
def streams(server: Conversation) -> None:
    answers = server.stream([repeat(4, 5, 6, triton_enable_empty_final_response=True)])
    assert len(answers) == 4
    server.stream([echo(b"one"), echo(b"two"), digits(2)])
    server.stream([])


@talk
def streams_with_errors(server: Conversation) -> None:
    wrong = infer("none", ("IN", np.zeros(1, np.int32), "INT32"))
    server.stream([wrong, echo(b"goes on")])
    server.stream([wrong], metadata=(("triton_grpc_error", "true"),))


@talk
def sequences(server: Conversation) -> None:
    number = int.from_bytes(os.urandom(4), "big")
    server.ask("ModelInfer", add(1, number, start=True))
    server.ask("ModelInfer", add(2, number))
    server.ask("ModelInfer", add(3, number, end=True))
    name = os.urandom(4).hex()
    server.stream([add(1, name, start=True), add(5, name), add(7, name, end=True)])
    server.ask("ModelInfer", add(1, 0))


@talk
def sequences_that_cannot_be(server: Conversation) -> None:
    server.ask("ModelInfer", add(1, 990_001))
    server.ask("ModelInfer", add(1, 990_001, end=True))
    server.ask("ModelInfer", add(1, "never begun"))
    server.ask("ModelInfer", add(1, "", start=True))
    server.stream([add(1, 990_002), add(2, 990_002, start=True), add(3, 990_002, end=True)])
    server.ask("ModelInfer", add(4, 990_002))


@talk
def sequences_that_begin_again(server: Conversation) -> None:
    for end in (False, True):
        server.ask("ModelInfer", add(5, 990_003, start=True))
        server.ask("ModelInfer", add(6, 990_003))
        server.stream([add(7, 990_003), add(8, 990_003, end=end)])
    server.ask("ModelInfer", add(1, 990_003))
    server.ask("ModelInfer", add(1, "990003", start=True))  # another kind of id: another sequence
    server.ask("ModelInfer", add(2, "990003", end=True))


@talk
def many_sequences_at_once(server: Conversation) -> None:
    """Some by unary calls, some in streams, some in both; steps of one between steps of others."""
    names = [991_000 + number for number in range(12)]
    for name in names:
        server.ask("ModelInfer", add(name, name, start=True))
    for step in range(3):
        for name in names:
            if name % 3:
                server.ask("ModelInfer", add(step, name))
            else:
                server.stream([add(step, name)])
    server.stream([add(1, "in a stream", start=True)])
    server.ask("ModelInfer", add(2, "in a stream"))
    server.stream([add(3, "in a stream", end=True)])
    for name in names:
        server.ask("ModelInfer", add(0, name, end=True))


@talk
def parameters_of_requests(server: Conversation) -> None:
    for more in ({"priority": 1}, {"priority": 7}, {"timeout": 5_000_000}, {"my_own": "x"}, {"other": True}):
        server.ask("ModelInfer", digits(**more))
    request = digits()
    request.parameters["priority"].uint64_param = 2
    request.parameters["share"].double_param = 0.5
    server.ask("ModelInfer", request)
    request.outputs[0].parameters["classification"].int64_param = 3
    server.ask("ModelInfer", request)
    request.outputs[0].parameters["classification"].int64_param = -1
    server.ask("ModelInfer", request)


@talk
def tensors_in_every_form(server: Conversation) -> None:
    """Values as typed fields instead of bytes, in both, in neither, of the wrong length, none at all."""
    request = service_pb2.ModelInferRequest(model_name="digits")
    image = request.inputs.add(name="IMAGE", datatype="FP32", shape=[1, 64])
    image.contents.fp32_contents.extend([1.0] * 64)
    for name in ("SCORES", "LABEL"):
        request.outputs.add(name=name)
    server.ask("ModelInfer", request)
    request.raw_input_contents.append(bytes(256))
    server.ask("ModelInfer", request)
    image.ClearField("contents")
    server.ask("ModelInfer", request)
    del request.raw_input_contents[:]
    server.ask("ModelInfer", request)
    request.raw_input_contents.append(bytes(255))
    server.ask("ModelInfer", request)
    image.shape[:] = [0, 64]
    request.raw_input_contents[:] = [b""]
    server.ask("ModelInfer", request)
    image.shape[:] = [-1, 64]
    server.ask("ModelInfer", request)
    image.datatype = "FP99"
    server.ask("ModelInfer", request)


@talk
def large_messages(server: Conversation) -> None:
    for size in (0, 65_535, 5_000_000):
        values = np.arange(size, dtype=np.uint32).astype(np.uint8).tobytes()
        answer = server.ask("ModelInfer", echo(values))
        assert server.record.pop()[0] == "ModelInfer: OK"
        server.note(size=size, same=answer.raw_output_contents[0] == values)


@talk
def what_comes_beside_an_answer(server: Conversation) -> None:
    server.metadata_of("ServerLive", service_pb2.ServerLiveRequest())
    server.metadata_of("ModelReady", service_pb2.ModelReadyRequest(name="digits"))
    server.metadata_of("RepositoryIndex", service_pb2.RepositoryIndexRequest())
    server.metadata_of("ModelMetadata", service_pb2.ModelMetadataRequest(name="none"))
    server.metadata_of("ModelInfer", digits(), metadata=(("traceparent", "00-1-2-01"), ("x-bin", b"\0\xff")))
    server.metadata_of("ModelInfer", digits(65))


@talk
def streams_of_compressed_and_broken_messages(server: Conversation) -> None:
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        server.stream([echo(b"x" * 3000), digits(3)], compression=compression)
    call = server.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(
        iter([b"\xff\xff\xff"]), timeout=30
    )
    with contextlib.suppress(grpc.RpcError):  # its status is compared below
        server.note(answers=len(list(call)))
    server.note(status=call.code().name, words=call.details())


def by_request(server: Conversation, requests: list[Any], **more: Any) -> None:
    """A stream in which answers to several requests may alternate: what each got, in order, and the end."""
    answers = server.stream(requests, **more)
    if answers:
        del server.record[-1 - len(answers) : -1]
    said: dict[str, list[Any]] = {}
    for answer in answers:
        said.setdefault(answer.infer_response.id, []).append(plain(answer))
    server.note(said=dict(sorted(said.items())))


def named(name: str, request: Any) -> Any:
    request.id = name
    return request


@talk
def streams_that_mix_models(server: Conversation) -> None:
    """Ordinary ones. A decoupled one at the same time in the same stream is what Triton 2.51 may die of: its
    gRPC library fails an assertion."""
    wrong = infer("none", ("IN", np.zeros(1, np.int32), "INT32"))
    for asks in ({}, {"triton_enable_empty_final_response": True}):
        server.stream(
            [
                named("first", echo(b"1", **asks)), named("wrong", wrong), named("second", digits(3, **asks)),
                named("start", add(1, 993_001, start=True)), named("unfit", digits(65, **asks)),
                named("third", echo(b"3", **asks)), named("end", add(2, 993_001, end=True)), wrong,
            ]
        )  # fmt: skip


@talk
def streams_whose_answers_alternate(server: Conversation) -> None:
    for asks in ({}, {"triton_enable_empty_final_response": True}):
        many, none = named("many", repeat(*range(50), **asks)), named("none", repeat(**asks))
        by_request(server, [many, named("few", repeat(7, 8, **asks)), none, named("more", repeat(9, **asks))])


@talk
def streams_and_their_final_responses(server: Conversation) -> None:
    for asks in (True, False, 1, "true"):
        for request in (repeat, echo, digits):
            values = {repeat: (1, 2), echo: (b"x",), digits: (2,)}[request]
            server.stream([request(*values, triton_enable_empty_final_response=asks)])
    server.stream([repeat(), repeat(), repeat(5)])
    server.stream([repeat(triton_enable_empty_final_response=True)] * 3)
    server.ask("ModelInfer", echo(triton_enable_empty_final_response=True))
    server.ask("ModelInfer", repeat(1, triton_enable_empty_final_response=True))
    server.stream([echo(triton_final_response=True), echo()])


@talk
def streams_that_end_with_their_first_error(server: Conversation) -> None:
    wrong = infer("none", ("IN", np.zeros(1, np.int32), "INT32"))
    for wanted in ("true", "false", "1", ""):
        server.stream([echo(b"before"), wrong], metadata=(("triton_grpc_error", wanted),))
    server.stream([digits(65)], metadata=(("triton_grpc_error", "true"),))
    server.stream([add(1, 993_002)], metadata=(("triton_grpc_error", "true"),))

"""A client that writes down everything a server says."""

from typing import Any, Self

import grpc
import numpy as np
import tritonclient.grpc as triton
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2

SERVICE = "/inference.GRPCInferenceService/"
TIMEOUT_S = 30.0
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own, not another channel's to the address
]
Said = tuple[str, str, Any]  # status, message, answer


class Conversation:
    """With one server. Every call adds what was said to ``record`` and returns the answer, or None."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self.client = triton.InferenceServerClient(address)
        self.record: list[Said] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.client.close()
        self.channel.close()

    def ask(self, rpc: str, request: Message | bytes | None = None, **more: Any) -> Any:
        """A unary call; its answer is decoded if it is one of Triton's RPCs."""
        path = rpc if rpc.startswith("/") else SERVICE + rpc
        if request is None:
            request = getattr(service_pb2, f"{rpc}Request")()
        message = request if isinstance(request, bytes) else request.SerializeToString()
        kind = getattr(service_pb2, f"{rpc}Response", None)
        try:
            raw = self.channel.unary_unary(path)(message, timeout=TIMEOUT_S, **more)
        except grpc.RpcError as error:
            self._note(rpc, error.code().name, error.details() or "", None)  # type: ignore[attr-defined] # a call
            return None
        answer = kind.FromString(raw) if kind else raw
        self._note(rpc, "OK", "", plain(answer) if kind else raw)
        return answer

    def stream(self, requests: list[Message], **more: Any) -> list[Any]:
        """A ModelStreamInfer call: all requests, then all responses, in order, and the status at the end."""
        call = self.channel.stream_stream(
            SERVICE + "ModelStreamInfer",
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )(iter([request.SerializeToString() for request in requests]), timeout=TIMEOUT_S, **more)
        answers = []
        try:
            for answer in call:
                answers.append(answer)
                self._note("stream", "OK", "", plain(answer))
        except grpc.RpcError:
            pass  # noted below, as every end of a stream
        self._note("stream ended", call.code().name, call.details() or "", None)
        return answers

    def metadata_of(self, rpc: str, request: Message, **more: Any) -> None:
        """What a unary call's answer says besides the message: before and after it."""
        call = self.channel.unary_unary(SERVICE + rpc).future(
            request.SerializeToString(), timeout=TIMEOUT_S, **more
        )
        call.exception()
        for when, found in (("before", call.initial_metadata()), ("after", call.trailing_metadata())):
            self._note(f"metadata {when} {rpc}", call.code().name, "", sorted(map(tuple, found)))

    def note(self, **facts: Any) -> None:
        """Write down something else that must be the same everywhere."""
        self._note("noted", "", "", facts)

    def _note(self, what: str, status: str, message: str, answer: Any) -> None:
        self.record.append((f"{what}: {status}", message, answer))


def plain(message: Message) -> Any:
    """A message as data, without what names a server or measures a time."""
    return _without(MessageToDict(message, preserving_proto_field_name=True))


VARYING = {"ns", "last_inference"}  # times


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(inner) for key, inner in value.items() if key not in VARYING}
    if isinstance(value, list):
        return [_without(inner) for inner in value]
    return value


def infer(
    model: str, *inputs: tuple[str, np.ndarray, str], outputs: tuple[str, ...] = (), **parameters: Any
) -> Any:
    """A ModelInferRequest; ``outputs`` keeps REPLICA out, which is different everywhere."""
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, values, kind in inputs:
        tensor = request.inputs.add(name=name, datatype=kind, shape=values.shape)
        tensor.SetInParent()
        request.raw_input_contents.append(values.tobytes())
    for name in outputs:
        request.outputs.add(name=name)
    for key, value in parameters.items():
        put(request.parameters[key], value)
    return request


def put(parameter: Any, value: Any) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    else:
        parameter.string_param = value


def digits(count: int = 1, **parameters: Any) -> Any:
    images = np.zeros((count, 64), np.float32)
    return infer("digits", ("IMAGE", images, "FP32"), outputs=("SCORES", "LABEL"), **parameters)


def echo(values: bytes = b"hello", **parameters: Any) -> Any:
    return infer(
        "echo", ("INPUT0", np.frombuffer(values, np.uint8), "UINT8"), outputs=("OUTPUT0",), **parameters
    )


def add(number: int, sequence: int | str, *, start: bool = False, end: bool = False) -> Any:
    return infer(
        "accumulator", ("INPUT", np.full((1, 1), number, np.int32), "INT32"), outputs=("SUM",),
        sequence_id=sequence, sequence_start=start, sequence_end=end,
    )  # fmt: skip


def repeat(*numbers: int, **parameters: Any) -> Any:
    return infer("repeat", ("IN", np.array(numbers, np.int32), "INT32"), **parameters)

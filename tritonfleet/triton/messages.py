"""Protobuf of Triton's gRPC service for one who sends bytes himself: requests made once, answers read.

A ModelInferRequest is made in two parts, before and behind its parameters, so that a request of a sequence
is three pieces joined; protobuf reads fields in any order, the router wants parameters before tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tritonclient.grpc import service_pb2 as pb

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
MODEL_METADATA = "/inference.GRPCInferenceService/ModelMetadata"
MODEL_CONFIG = "/inference.GRPCInferenceService/ModelConfig"
MODEL_STATISTICS = "/inference.GRPCInferenceService/ModelStatistics"
REPLICA_OUTPUT = "REPLICA"  # by convention of the shipped models: who answered


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """``shape`` of one item, without the batch's dimension; -1 where the client chooses."""

    name: str
    datatype: str  # "FP32", "BYTES" ...
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class ModelInfo:
    name: str
    version: str  # that was asked for; "" for the model's own choice
    inputs: tuple[TensorInfo, ...]
    max_batch: int  # 0: its tensors have no batch dimension
    sequences: bool
    decoupled: bool
    tells_replica: bool  # has an output that names the replica


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes


@dataclass(frozen=True, slots=True)
class ServerTimes:
    """Cumulative statistics of a model, all versions: counts, and nanoseconds."""

    requests: int
    inferences: int
    executions: int
    queue_ns: int
    compute_ns: int


def about(model: str, version: str) -> bytes:
    """The request of ModelMetadata, ModelConfig and ModelStatistics: all have the same two fields."""
    return bytes(pb.ModelMetadataRequest(name=model, version=version).SerializeToString())


def model_info(model: str, version: str, config: bytes) -> ModelInfo:
    """From the answer to ModelConfig. Raises ValueError if it cannot be read."""
    try:
        found = pb.ModelConfigResponse.FromString(config).config
    except Exception as error:  # protobuf's DecodeError; its home differs by version
        raise ValueError(f"the answer to ModelConfig cannot be read: {error}") from error
    outputs = {(entry.name, _datatype(entry)) for entry in found.output}
    return ModelInfo(
        model,
        version,
        tuple(
            TensorInfo(entry.name, _datatype(entry), tuple(entry.dims), entry.optional)
            for entry in found.input
        ),
        found.max_batch_size,
        found.HasField("sequence_batching"),
        found.model_transaction_policy.decoupled,
        (REPLICA_OUTPUT, "BYTES") in outputs,
    )


def _datatype(entry: object) -> str:
    """``TYPE_FP32`` → ``FP32``; ``TYPE_STRING`` → ``BYTES``, as metadata and requests call it."""
    field = entry.DESCRIPTOR.fields_by_name["data_type"]  # type: ignore[attr-defined] # messages ship no types
    name = str(field.enum_type.values_by_number[entry.data_type].name)  # type: ignore[attr-defined] # the same
    return name.removeprefix("TYPE_").replace("STRING", "BYTES")


def infer_head(model: str, version: str) -> bytes:
    return bytes(pb.ModelInferRequest(model_name=model, model_version=version).SerializeToString())


def infer_tail(tensors: Sequence[Tensor]) -> bytes:
    request = pb.ModelInferRequest(raw_input_contents=[tensor.raw for tensor in tensors])
    for tensor in tensors:
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return bytes(request.SerializeToString())


def sequence_parameters(sequence: int, *, start: bool, end: bool) -> bytes:
    request = pb.ModelInferRequest()
    request.parameters["sequence_id"].int64_param = sequence
    if start:
        request.parameters["sequence_start"].bool_param = True
    if end:
        request.parameters["sequence_end"].bool_param = True
    return bytes(request.SerializeToString())


def replica_of(answer: bytes) -> str:
    """What the output `REPLICA_OUTPUT` of a ModelInferResponse says: ``main-0`` of ``main-0.3``."""
    response = pb.ModelInferResponse.FromString(answer)
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=False):
        if output.name == REPLICA_OUTPUT and len(raw) >= 4:
            instance = raw[4 : 4 + int.from_bytes(raw[:4], "little")].decode(errors="replace")
            return str(instance.rpartition(".")[0] or instance)
    return "unknown"


def server_times(answer: bytes) -> ServerTimes:
    """From the answer to ModelStatistics."""
    entries = pb.ModelStatisticsResponse.FromString(answer).model_stats
    stats = [entry.inference_stats for entry in entries]
    return ServerTimes(
        requests=sum(part.success.count for part in stats),
        inferences=sum(entry.inference_count for entry in entries),
        executions=sum(entry.execution_count for entry in entries),
        queue_ns=sum(part.queue.ns for part in stats),
        compute_ns=sum(
            part.compute_input.ns + part.compute_infer.ns + part.compute_output.ns for part in stats
        ),
    )

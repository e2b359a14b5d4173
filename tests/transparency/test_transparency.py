"""To a client a fleet is one Triton: the same conversation, the same statuses, messages, answers."""

import json
import os
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from conversation import Conversation, add, digits, echo, infer, repeat
from running_fleet import REPOSITORY
from tritonclient.grpc import service_pb2
from tritonclient.utils import shared_memory

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("transparency")]

Talk = Callable[[Conversation], None]
TALKS: list[Talk] = []


def talk(function: Talk) -> Talk:
    TALKS.append(function)
    return function


@pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.__name__)
def test_it_says_the_same(talk: Talk, bare: Conversation, fleet: Conversation) -> None:
    talk(bare)
    talk(fleet)
    assert fleet.record == bare.record
    assert bare.record


# ---------------------------------------------------------------- health and metadata


@talk
def health(server: Conversation) -> None:
    assert server.ask("ServerLive").live
    assert server.ask("ServerReady").ready
    assert server.ask("/grpc.health.v1.Health/Check", b"") == b"\x08\x01"
    server.ask("/grpc.health.v1.Health/Check", b"\x0a\x07unknown")


@talk
def what_there_is_not(server: Conversation) -> None:
    server.ask("/grpc.health.v1.Health/Watch", b"")
    server.ask("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", b"")
    server.ask("/inference.GRPCInferenceService/NoSuchRpc", b"")
    server.ask("/no.Service/Rpc", b"")


@talk
def model_readiness(server: Conversation) -> None:
    for name, version in [
        ("digits", ""),
        ("digits", "1"),
        ("digits", "7"),
        ("digits", "x"),
        ("none", ""),
        ("", ""),
    ]:
        server.ask("ModelReady", service_pb2.ModelReadyRequest(name=name, version=version))


@talk
def metadata_and_configuration(server: Conversation) -> None:
    assert "statistics" in server.ask("ServerMetadata").extensions
    for name, version in [("digits", ""), ("repeat", "1"), ("digits", "7"), ("none", ""), ("", "")]:
        server.ask("ModelMetadata", service_pb2.ModelMetadataRequest(name=name, version=version))
        server.ask("ModelConfig", service_pb2.ModelConfigRequest(name=name, version=version))


UNARY = [
    "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelInfer",
    "ModelStatistics", "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload",
    "SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister", "TraceSetting",
    "LogSettings",
]  # fmt: skip


@talk
def messages_that_are_no_messages(server: Conversation) -> None:
    for rpc in UNARY:
        server.ask(rpc, b"\xff\xff\xff")


@talk
def compressed_requests(server: Conversation) -> None:
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        for rpc in (
            "ServerLive",
            "ServerReady",
            "RepositoryIndex",
            "SystemSharedMemoryStatus",
            "LogSettings",
        ):
            server.ask(rpc, compression=compression)
        known = service_pb2.ModelReadyRequest(name="digits")
        assert server.ask("ModelReady", known, compression=compression).ready
        server.ask("ModelInfer", digits(4), compression=compression)


# ---------------------------------------------------------------- inference


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
        request = echo(values)
        stub = server.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        try:
            answer = service_pb2.ModelInferResponse.FromString(stub(request.SerializeToString(), timeout=30))
            server.note(size=size, same=answer.raw_output_contents[0] == values)
        except grpc.RpcError as error:  # a client takes 4 MB unless it asks for more
            server.note(size=size, status=error.code().name)  # type: ignore[attr-defined] # a call


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
    try:
        answers = list(call)
        server.note(answers=len(answers))
    except grpc.RpcError:
        pass
    server.note(status=call.code().name, words=call.details())


# ---------------------------------------------------------------- model control


def load(model: str, **parameters: Any) -> Any:
    request = service_pb2.RepositoryModelLoadRequest(model_name=model)
    for key, value in parameters.items():
        if isinstance(value, bytes):
            request.parameters[key].bytes_param = value
        else:
            request.parameters[key].string_param = value
    return request


def unload(model: str) -> Any:
    return service_pb2.RepositoryModelUnloadRequest(model_name=model)


def gone(server: Conversation, model: str) -> None:
    """Wait until an unload has ended: it goes on after its answer."""
    stub = server.channel.unary_unary("/inference.GRPCInferenceService/RepositoryIndex")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        index = service_pb2.RepositoryIndexResponse.FromString(stub(b""))
        if all(entry.state == "UNAVAILABLE" for entry in index.models if entry.name == model):
            return
        time.sleep(0.02)
    pytest.fail(f"{model} is still there")


@talk
def loading_and_unloading(server: Conversation) -> None:
    server.ask("RepositoryIndex")
    server.ask("RepositoryModelUnload", unload("echo"))
    assert not server.ask("ModelReady", service_pb2.ModelReadyRequest(name="echo")).ready
    server.ask("ModelInfer", echo())
    server.ask("ModelStatistics", service_pb2.ModelStatisticsRequest(name="echo"))
    server.ask("ModelConfig", service_pb2.ModelConfigRequest(name="echo"))
    server.ask("RepositoryIndex", service_pb2.RepositoryIndexRequest(ready=True))
    gone(server, "echo")
    server.ask("RepositoryIndex")
    server.ask("RepositoryModelUnload", unload("echo"))
    server.ask("RepositoryModelLoad", load("echo"))
    assert server.ask("ModelReady", service_pb2.ModelReadyRequest(name="echo")).ready
    server.ask("ModelInfer", echo())
    server.ask("RepositoryIndex")


@talk
def loading_with_another_configuration(server: Conversation) -> None:
    config = server.client.get_model_config("digits", as_json=True)["config"]
    config = {
        "name": "digits",
        "backend": "python",
        "max_batch_size": 2,
        **{k: config[k] for k in ("input", "output")},
    }
    for tensor in (*config["input"], *config["output"]):
        tensor["dims"] = [int(size) for size in tensor["dims"]]
    server.ask("RepositoryModelLoad", load("digits", config=json.dumps(config)))
    for _ in range(6):  # whichever replica answers
        server.ask("ModelConfig", service_pb2.ModelConfigRequest(name="digits"))
        server.ask("ModelInfer", digits(3))
    server.ask("RepositoryModelUnload", unload("digits"))
    server.ask("RepositoryModelLoad", load("digits"))
    for _ in range(6):
        server.ask("ModelInfer", digits(3))


@talk
def loading_what_cannot_be_loaded(server: Conversation) -> None:
    server.ask("RepositoryModelLoad", load("none"))
    server.ask("RepositoryModelLoad", load("digits", config="{not json"))
    server.ask("RepositoryModelLoad", load("digits", **{"file:1/model.py": b"raise"}))
    server.ask("RepositoryModelLoad", load("digits", nonsense="1"))
    server.ask("RepositoryModelUnload", unload("none"))
    server.ask("RepositoryIndex", service_pb2.RepositoryIndexRequest(repository_name="another"))
    server.ask("ModelInfer", digits())


@talk
def loading_versions(server: Conversation) -> None:
    """A model made of files in the request, with two versions of three."""
    source = (REPOSITORY / "echo" / "1" / "model.py").read_bytes()
    config = json.loads(
        '{"name": "pair", "backend": "python", "version_policy": {"specific": {"versions": [1, 3]}},'
        '"input": [{"name": "INPUT0", "data_type": "TYPE_UINT8", "dims": [-1]}],'
        '"output": [{"name": "OUTPUT0", "data_type": "TYPE_UINT8", "dims": [-1]},'
        '{"name": "REPLICA", "data_type": "TYPE_STRING", "dims": [1]}]}'
    )
    files = {f"file:{version}/model.py": source for version in (1, 2, 3)}
    server.ask("RepositoryModelLoad", load("pair", config=json.dumps(config), **files))
    for version in ("", "1", "2", "3", "4"):
        request = echo(b"which")
        request.model_name, request.model_version = "pair", version
        for _ in range(4):  # whichever replica answers
            server.ask("ModelInfer", request)
        server.stream([request])
        server.ask("ModelReady", service_pb2.ModelReadyRequest(name="pair", version=version))
        server.ask("ModelMetadata", service_pb2.ModelMetadataRequest(name="pair", version=version))
        server.ask("ModelConfig", service_pb2.ModelConfigRequest(name="pair", version=version))
    server.ask("RepositoryIndex")
    config["version_policy"] = {"latest": {"num_versions": 1}}
    server.ask("RepositoryModelLoad", load("pair", config=json.dumps(config), **files))
    for version in ("1", "3"):
        request.model_version = version
        for _ in range(4):
            server.ask("ModelInfer", request)
    server.ask("RepositoryIndex")
    server.ask("RepositoryModelUnload", unload("pair"))
    gone(server, "pair")
    server.ask("RepositoryIndex")


# ---------------------------------------------------------------- statistics


def counted(server: Conversation, model: str, requests: int) -> None:
    """Triton counts a request after it has answered it: wait for that, off the record."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        answer = server.ask("ModelStatistics", service_pb2.ModelStatisticsRequest(name=model))
        server.record.pop()
        if answer.model_stats[0].inference_stats.success.count >= requests:
            return
        time.sleep(0.05)


@talk
def statistics(server: Conversation) -> None:
    server.ask("RepositoryModelUnload", unload("digits"))
    gone(server, "digits")
    server.ask("RepositoryModelLoad", load("digits"))
    for count in (1, 1, 3, 3, 3, 8):
        server.ask("ModelInfer", digits(count))
    counted(server, "digits", 6)
    server.ask("ModelStatistics", service_pb2.ModelStatisticsRequest(name="digits"))
    server.ask("ModelStatistics", service_pb2.ModelStatisticsRequest(name="digits", version="1"))
    server.ask("ModelStatistics", service_pb2.ModelStatisticsRequest(name="digits", version="7"))
    server.ask("ModelStatistics", service_pb2.ModelStatisticsRequest(name="none"))
    names = [(entry.name, entry.version) for entry in server.ask("ModelStatistics").model_stats]
    server.record.pop()  # what other conversations did is not the same everywhere
    server.note(models=names)


# ---------------------------------------------------------------- shared memory


@talk
def system_shared_memory(server: Conversation) -> None:
    key = f"/tf{os.urandom(6).hex()}"
    values = np.arange(100, dtype=np.uint8)
    region = shared_memory.create_shared_memory_region("region", key, 200)
    try:
        shared_memory.set_shared_memory_region(region, [values])
        register = service_pb2.SystemSharedMemoryRegisterRequest(name="region", key=key, byte_size=200)
        server.ask("SystemSharedMemoryRegister", register)
        server.ask("SystemSharedMemoryRegister", register)
        status = server.ask("SystemSharedMemoryStatus")
        server.record.pop()  # the key is this conversation's own
        server.note(regions={name: (one.offset, one.byte_size) for name, one in status.regions.items()})
        for _ in range(6):  # whichever replica answers
            server.ask("ModelInfer", from_region("region"))
        result = shared_memory.get_contents_as_numpy(region, np.uint8, [200])
        assert np.array_equal(result[100:], values)
        server.ask("SystemSharedMemoryStatus", service_pb2.SystemSharedMemoryStatusRequest(name="none"))
        for offset, size in ((150, 100), (0, 101), (0, 99), (2**62, 100)):  # out of it, or not as announced
            server.ask("ModelInfer", from_region("region", offset, size))
        server.ask("ModelInfer", from_region("another"))
        unregister(server, "region")
        server.ask("ModelInfer", from_region("region"))
        server.ask("SystemSharedMemoryRegister", register)
        unregister(server)
        server.ask("SystemSharedMemoryStatus")
    finally:
        shared_memory.destroy_shared_memory_region(region)


def unregister(server: Conversation, name: str = "") -> None:
    """Until it is done: a request still uses its region for a moment after its answer."""
    for _ in range(200):
        server.ask("SystemSharedMemoryUnregister", service_pb2.SystemSharedMemoryUnregisterRequest(name=name))
        if "currently in use" not in server.record[-1][1]:
            return
        server.record.pop()
        time.sleep(0.02)


def from_region(name: str, begin: int = 0, size: int = 100) -> Any:
    """echo of the first 100 bytes of a region, or others, into its last 100."""
    request = service_pb2.ModelInferRequest(model_name="echo")
    tensor = request.inputs.add(name="INPUT0", datatype="UINT8", shape=[100])
    wanted = request.outputs.add(name="OUTPUT0")
    for parameters, offset in ((tensor.parameters, 0), (wanted.parameters, 100)):
        parameters["shared_memory_region"].string_param = name
        parameters["shared_memory_byte_size"].int64_param = size if offset == 0 else 100
        parameters["shared_memory_offset"].int64_param = offset or begin
    return request


@talk
def shared_memory_that_cannot_be(server: Conversation) -> None:
    server.ask(
        "SystemSharedMemoryRegister",
        service_pb2.SystemSharedMemoryRegisterRequest(name="r", key="/tf_no_such_region", byte_size=4),
    )
    server.ask(
        "CudaSharedMemoryRegister",
        service_pb2.CudaSharedMemoryRegisterRequest(name="r", raw_handle=b"x" * 64, byte_size=4),
    )
    for kind in ("System", "Cuda"):
        status = getattr(service_pb2, f"{kind}SharedMemoryStatusRequest")(name="r")
        server.ask(f"{kind}SharedMemoryStatus", status)
        server.ask(f"{kind}SharedMemoryStatus")
        named = getattr(service_pb2, f"{kind}SharedMemoryUnregisterRequest")(name="r")
        server.ask(f"{kind}SharedMemoryUnregister", named)
        server.ask(f"{kind}SharedMemoryUnregister")


# ---------------------------------------------------------------- trace and log settings


def trace(model: str = "", **settings: list[str]) -> Any:
    request = service_pb2.TraceSettingRequest(model_name=model)
    for key, values in settings.items():
        request.settings[key].value.extend(values)
        request.settings[key].SetInParent()
    return request


@talk
def trace_settings(server: Conversation) -> None:
    server.ask("TraceSetting")
    server.ask("TraceSetting", trace(trace_rate=["77"], trace_count=["5"]))
    server.ask("TraceSetting", trace("echo", trace_rate=["99"]))
    for _ in range(4):
        server.ask("TraceSetting", trace("echo"))
    server.ask("TraceSetting", trace("none"))
    server.ask("TraceSetting", trace("none", trace_rate=["1"]))
    server.ask("TraceSetting", trace(trace_rate=["often"]))
    server.ask("TraceSetting", trace(no_such_key=["1"]))
    server.ask("TraceSetting", trace(trace_file=["/tmp/trace"]))
    server.ask("TraceSetting", trace("echo", trace_rate=[]))
    server.ask("TraceSetting", trace(trace_rate=[], trace_count=[]))
    for model in ("", "echo"):
        server.ask("TraceSetting", trace(model))


@talk
def log_settings(server: Conversation) -> None:
    def log(**settings: Any) -> Any:
        request = service_pb2.LogSettingsRequest()
        for key, value in settings.items():
            field = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
            setattr(request.settings[key], field, value)
        return request

    server.ask("LogSettings")
    server.ask("LogSettings", log(log_verbose_level=1, log_warning=False))
    for _ in range(4):
        server.ask("LogSettings")
    server.ask("LogSettings", log(log_verbose_level=0, log_warning=True, log_format="ISO8601"))
    server.ask("LogSettings", log(log_format="default"))
    server.ask("LogSettings", log(log_format="prose"))
    server.ask("LogSettings", log(log_info="yes"))
    server.ask("LogSettings", log(log_file="/tmp/log"))
    server.ask("LogSettings", log(no_such_key=True))
    server.ask("LogSettings")

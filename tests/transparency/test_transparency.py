"""To a client a fleet is one Triton: the same conversation, the same statuses, messages, answers."""

import json
import os
import time
from typing import Any

import grpc
import inference_talks  # noqa: F401 # they are had, too
import numpy as np
import pytest
from conversation import Conversation, add, digits, echo, repeat
from running_fleet import REPOSITORY
from talks import TALKS, Talk, talk
from tritonclient.grpc import service_pb2
from tritonclient.utils import shared_memory

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("transparency")]


@pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.__name__)
def test_it_says_the_same(talk: Talk, bare: Conversation, fleet: Conversation) -> None:
    talk(bare)
    talk(fleet)
    assert fleet.record == bare.record
    assert bare.record


def test_a_sequence_is_found_by_every_router_worker(fleet_address: str) -> None:
    """Each step on a connection of its own, so that the system gives some to each worker of the address."""
    for number in range(3):
        for step in range(12):
            with Conversation(fleet_address) as server:
                answer = server.ask("ModelInfer", add(1, 992_000 + number, start=step == 0, end=step == 11))
                assert np.frombuffer(answer.raw_output_contents[0], np.int32)[0] == step + 1


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


@talk
def statistics_of_streams(server: Conversation) -> None:
    for model in ("digits", "repeat"):
        server.ask("RepositoryModelUnload", unload(model))
        gone(server, model)
        server.ask("RepositoryModelLoad", load(model))
    for count in (1, 3, 65, 3):  # each in a stream of its own, or they may be batched together
        server.stream([digits(count)])
    server.stream([repeat(1, 2, 3, triton_enable_empty_final_response=True)])
    server.stream([repeat(4, triton_enable_empty_final_response=True)])
    for model, requests in (("digits", 3), ("repeat", 2)):
        counted(server, model, requests)
        server.ask("ModelStatistics", service_pb2.ModelStatisticsRequest(name=model))


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

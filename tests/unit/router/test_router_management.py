"""Who may change the servers: networks of every kind, and requests that only look like questions."""

import pytest
from tritonclient.grpc import service_pb2

from tritonfleet.router.grpc import SERVICE
from tritonfleet.router.management import Management

LOAD, TRACE, LOG = (SERVICE + name for name in (b"RepositoryModelLoad", b"TraceSetting", b"LogSettings"))


def body(message: bytes = b"", flag: bytes = b"\0") -> bytes:
    return flag + len(message).to_bytes(4, "big") + message


@pytest.mark.parametrize(
    ("networks", "peer", "allowed"),
    [
        (None, "127.0.0.1", True),
        (None, "127.8.9.1", True),
        (None, "::1", True),
        (None, "::ffff:127.0.0.1", True),
        (None, "10.0.0.1", False),
        (None, "::ffff:10.0.0.1", False),
        (None, "fe80::1%eth0", False),
        (None, "", False),
        (["10.0.0.0/8"], "10.200.0.1", True),
        (["10.0.0.0/8"], "127.0.0.1", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["0.0.0.0/0", "::/0"], "192.168.1.1", True),
    ],
)
def test_changes_are_taken_from_the_networks_of_the_file(
    networks: list[str] | None, peer: str, allowed: bool
) -> None:
    management = Management() if networks is None else Management(networks)
    assert management.allows(LOAD, body(b"\x12\x01m"), peer) is allowed


@pytest.mark.parametrize("rpc", [b"ModelInfer", b"ModelStatistics", b"RepositoryIndex", b"ServerLive"])
def test_what_changes_nothing_is_everybody_s(rpc: bytes) -> None:
    assert Management().allows(SERVICE + rpc, body(b"\x0a\x01m"), "10.0.0.1")


def test_settings_may_be_read_by_everybody() -> None:
    named = service_pb2.TraceSettingRequest(model_name="m" * 100).SerializeToString()
    for path, message in ((TRACE, b""), (LOG, b""), (TRACE, named)):
        assert Management().allows(path, body(message), "10.0.0.1")


def test_what_might_set_something_is_a_change() -> None:
    trace = service_pb2.TraceSettingRequest(model_name="m")
    name = trace.SerializeToString()
    trace.settings["trace_level"].value.append("OFF")
    settings = trace.SerializeToString().removesuffix(name)
    log = service_pb2.LogSettingsRequest()
    log.settings["log_info"].bool_param = False
    for path, message in (
        (TRACE, settings),
        (TRACE, name + settings),  # the other way round than any library writes it
        (TRACE, service_pb2.TraceSettingRequest(model_name="m" * 200).SerializeToString()),
        (LOG, log.SerializeToString()),
        (LOG, name),
    ):
        assert not Management().allows(path, body(message), "10.0.0.1")
    assert not Management().allows(TRACE, body(name, flag=b"\1"), "10.0.0.1")
    assert not Management().allows(TRACE, body(name) + body(settings), "10.0.0.1")

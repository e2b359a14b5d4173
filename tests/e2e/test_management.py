"""Who may change the servers, and certificates that are renewed: a real fleet behind mutual TLS."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import Queue
from time import time
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from certificate_dates import dated
from certificates import certificate
from running_fleet import RunningFleet, running_fleet
from test_fleet_traffic import echo, tensor
from test_router_restart import replaced, workers
from tritonclient.utils import InferenceServerException

pytestmark = [pytest.mark.triton, pytest.mark.xdist_group("management")]

ONE = {"replicas": {"min": 1, "initial": 1, "max": 1}, "models": ["echo", "repeat"], "devices": 1}
DAY = 86400.0
Connect = Callable[..., triton.InferenceServerClient]


class Guarded:
    """The fleet, its certificates, and clients by the names of theirs, which one authority has signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = certificate(folder, "authority")
        self.server = certificate(folder, "server")
        self.clients = {name: certificate(folder, name, self.authority) for name in ("ops", "user")}
        self.fleet: RunningFleet

    def router(self, *managers: str) -> dict[str, Any]:
        cert, key = map(str, self.server)
        tls = {"cert": cert, "key": key, "client_ca": str(self.authority[0])}
        return {"tls": tls, "management": list(managers)}

    def connect(self, name: str, root: Path | None = None) -> triton.InferenceServerClient:
        """A connection of its own."""
        chain, key = self.clients[name]
        return triton.InferenceServerClient(
            self.fleet.address,
            ssl=True,
            root_certificates=str(root or self.server[0]),
            private_key=str(key),
            certificate_chain=str(chain),
            channel_args=[("grpc.use_local_subchannel_pool", 1)],
        )

    def let(self, *managers: str) -> None:
        """Write another `router.management`, and wait for a worker that goes by it."""
        self.fleet.write(router=self.router(*managers), **ONE)
        before = workers(self.fleet)
        self.fleet.cli("up", "-d", "--wait")
        self.fleet.until(lambda f: replaced(f, before, 1), "a worker that knows of it")

    def log(self) -> str:
        return "".join(log.read_text() for log in self.fleet.state.rglob("router-*.log"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("management")
    guarded = Guarded(folder)
    managers = ("10.0.0.0/8", "127.0.0.2/32", "cert:ops")
    with running_fleet(folder, router=guarded.router(*managers), **ONE) as guarded.fleet:
        yield guarded


def change_everything(client: triton.InferenceServerClient) -> None:
    client.unload_model("echo")
    assert not client.is_model_ready("echo")
    client.load_model("echo")
    echo(client, 8)
    client.update_trace_settings("echo", {"trace_rate": "321"})
    client.update_log_settings({"log_verbose_level": 1})
    client.update_log_settings({"log_verbose_level": 0})


CHANGES: list[tuple[str, Callable[[triton.InferenceServerClient], Any]]] = [
    ("RepositoryModelUnload", lambda c: c.unload_model("echo")),
    ("RepositoryModelLoad", lambda c: c.load_model("echo")),
    ("TraceSetting", lambda c: c.update_trace_settings("echo", {"trace_rate": "5"})),
    ("LogSettings", lambda c: c.update_log_settings({"log_verbose_level": 2})),
    ("SystemSharedMemoryRegister", lambda c: c.register_system_shared_memory("a", "/a", 8)),
    ("SystemSharedMemoryUnregister", lambda c: c.unregister_system_shared_memory()),
]


def is_refused_every_change(client: triton.InferenceServerClient, who: str) -> None:
    """And nothing has changed."""
    before = client.get_trace_settings("echo"), client.get_log_settings()
    for rpc, change in CHANGES:
        with pytest.raises(InferenceServerException) as refused:
            change(client)
        assert refused.value.status() == "StatusCode.PERMISSION_DENIED"
        assert refused.value.message() == (
            f"tritonfleet: {rpc} changes the servers, which {who} may not: router.management in the fleet "
            "file says who may"
        )
    assert (client.get_trace_settings("echo"), client.get_log_settings()) == before
    echo(client, 8)


def test_a_certificates_name_that_is_listed_may_and_another_of_its_authority_may_not(
    guarded: Guarded,
) -> None:
    with guarded.connect("ops") as ops, guarded.connect("user") as user:
        change_everything(ops)
        is_refused_every_change(user, "127.0.0.1 with a certificate of 127.0.0.1, localhost, user")
        assert user.get_trace_settings("echo").settings["trace_rate"].value == ["321"]


def test_who_is_of_a_network_that_is_listed_may(guarded: Guarded) -> None:
    """The other networks, of the test before, were not enough."""
    guarded.let("10.0.0.0/8", "127.0.0.0/30")
    with guarded.connect("user") as user:
        change_everything(user)


def test_who_is_connected_goes_on_while_the_certificate_is_changed(guarded: Guarded, tmp_path: Path) -> None:
    """As it is renewed in practice: one file is written, then, after a while, the other."""
    old, answers = tmp_path / "old.pem", Queue[tuple[Any, Any]]()
    old.write_bytes(guarded.server[0].read_bytes())
    renewed = certificate(tmp_path, "renewed")
    values = np.arange(10_000, dtype=np.int32)  # for minutes: the test ends it
    with guarded.connect("user", old) as before, ExitStack() as leaving:
        leaving.callback(before.stop_stream, cancel_requests=True)
        before.start_stream(lambda result, error: answers.put((result, error)))
        delay = tensor("DELAY_MS", np.array([20], np.uint32), "UINT32")
        before.async_stream_infer("repeat", [tensor("IN", values, "INT32"), delay])
        for changed, new, said in (
            (0, renewed[0], "the changed certificate files do not fit, the old ones stay"),
            (1, renewed[1], "new connections use the changed"),
        ):
            guarded.server[changed].write_bytes(new.read_bytes())
            guarded.fleet.until(lambda _f, said=said: said in guarded.log(), said)
            echo(before, 8)
            trusted, not_any_more = (old, renewed[0]) if changed == 0 else (renewed[0], old)
            with guarded.connect("user", trusted) as newcomer:
                echo(newcomer, 8)
            zeros = tensor("INPUT0", np.zeros(8, np.uint8), "UINT8")
            with guarded.connect("user", not_any_more) as newcomer, pytest.raises(InferenceServerException):
                newcomer.infer("echo", [zeros], client_timeout=5)
        got = [answers.get(timeout=30) for _ in range(answers.qsize() + 10)]
    assert [error for _, error in got] == [None] * len(got)
    assert [int(result.as_numpy("OUT").reshape(-1)[0]) for result, _ in got] == list(range(len(got)))


def test_a_certificate_that_ends_soon_is_told_everywhere(guarded: Guarded, tmp_path: Path) -> None:
    """Last of all: the clients of the tests above do not trust this one."""
    now = time()
    ending = dated(tmp_path / "ending.pem", (now - 300 * DAY, now + 9.5 * DAY))
    tls = {"cert": str(ending), "key": str(ending.with_suffix(".key"))}
    guarded.fleet.write(router={"tls": tls}, **ONE)
    guarded.fleet.cli("up", "-d", "--wait")
    guarded.fleet.until(lambda f: f.events("certificate."), "a look at the certificate")
    said = "router.tls.cert expires in 9 days, on "
    assert said in guarded.fleet.cli("ps").stdout
    assert said in guarded.fleet.cli("events", "--type", "certificate").stdout
    checks = json.loads(guarded.fleet.cli("doctor", "-o", "json").stdout)["checks"]
    (found,) = (check for check in checks if check["name"] == "certificate")
    assert found["verdict"] == "warning"
    assert found["found"].startswith(said)
    dated(ending, (now - DAY, now + 300 * DAY))
    assert said not in guarded.fleet.cli("doctor", check=None).stdout

"""Real Triton servers to stand behind the proxies, with models of the shipped repository or another."""

import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import tritonclient.grpc as triton
from processes import free_ports, running

from tritonfleet.core.replica_tls import ServerTls
from tritonfleet.triton.embedded import TritonNotFoundError, find_tritonserver
from tritonfleet.triton.launch import Ports, arguments, environment

REPOSITORY = Path(__file__).resolve().parent.parent / "model_repository"
START_TIMEOUT_S = 120.0


@contextmanager
def replicas(
    count: int,
    models: Sequence[str],
    folder: Path,
    repository: Path = REPOSITORY,
    extra: Sequence[Mapping[str, str]] = (),
    tls: ServerTls | None = None,
) -> Iterator[list[str]]:
    """``count`` ready replicas that serve ``models``; yields their addresses, "127.0.0.1:PORT".

    ``extra``: more of the environment, for each of them. ``tls``: they are spoken to by it.
    """
    try:
        installation = find_tritonserver(os.environ)
    except TritonNotFoundError as error:
        sys.exit(f"{error}\n{error.remedy}")
    with ExitStack() as stack:
        addresses = []
        for index in range(count):
            ports = Ports(*free_ports(3))
            prefix = f"tfbench{uuid.uuid4().hex[:8]}"
            stack.callback(remove_regions, prefix)
            command = arguments(
                installation,
                model_repository=str(repository),
                models=models,
                ports=ports,
                shm_prefix=prefix,
                exit_timeout_s=5,
                devices=(),
                tls=tls,
            )
            named = environment(
                installation,
                os.environ,
                devices=(),
                markers={"TRITONFLEET_INSTANCE": f"bench-{index}.1"},
                extra=extra[index] if extra else {},
            )
            log = folder / f"triton-{index}{'-tls' if tls else ''}.log"
            stack.enter_context(running(command, log, named))
            addresses.append((f"127.0.0.1:{ports.grpc}", log))
        for address, log in addresses:
            wait_ready(address, log, tls.ca if tls else None)
        yield [address for address, _ in addresses]


def wait_ready(address: str, log: Path, ca: str | None = None) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with triton.InferenceServerClient(address, ssl=ca is not None, root_certificates=ca) as client:
        while time.monotonic() < deadline:
            try:
                if client.is_server_ready():
                    return
            except triton.InferenceServerException:
                time.sleep(0.1)
    sys.exit(f"no Triton became ready at {address} within {START_TIMEOUT_S:g} s:\n{log.read_text()[-2000:]}")


def remove_regions(prefix: str) -> None:
    for region in Path("/dev/shm").glob(f"{prefix}*"):
        region.unlink(missing_ok=True)

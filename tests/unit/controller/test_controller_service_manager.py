"""What a service manager is told, on real datagram sockets."""

import os
import socket
from pathlib import Path

from tritonfleet.controller.service_manager import send


def test_a_path_and_an_abstract_name(tmp_path: Path) -> None:
    for address in (str(tmp_path / "notify"), f"@tritonfleet-{os.urandom(6).hex()}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind("\0" + address[1:] if address.startswith("@") else address)
            manager.settimeout(5)
            send(address, READY="1", STATUS="main: 2 of 2 ready")
            assert manager.recv(4096) == b"READY=1\nSTATUS=main: 2 of 2 ready"


def test_nobody_there_is_no_failure(tmp_path: Path) -> None:
    send(str(tmp_path / "nobody"), STATUS="x")

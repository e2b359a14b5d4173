"""The dashboard as an SVG: a fleet of its own, a minute of work for it, one replica lost, one picture.

    python scripts/screenshot.py docs/images/dashboard.svg

The picture is what `tritonfleet dashboard` shows on a terminal of that size then. Needs nothing but the
virtual environment; everything it starts is ended again.
"""

import argparse
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from time import monotonic, sleep
from typing import Self

import msgspec
import numpy as np
import tritonclient.grpc as triton
from rich.console import Console
from tritonclient.utils import InferenceServerException

from tritonfleet.cli.board import render
from tritonfleet.cli.board_view import View
from tritonfleet.cli.client import ControlClient
from tritonfleet.controller.paths import FleetPaths
from tritonfleet.core.board import Board
from tritonfleet.drivers.ports import free_ports

REPOSITORY = Path(__file__).parents[1] / "model_repository"
WIDTH, HEIGHT = 118, 32
SIGHT_S = 60.0  # of work before the picture is taken
CLIENTS = 12
MODELS = ("digits", "text_work")
FILE = """
version: 1
name: demo
driver: process
devices: {{cpu: 4}}
router: {{listen: 127.0.0.1:{port}}}
pools:
  main:
    model_repository: ./models
    replicas: {{min: 1, initial: 3, max: 4}}
    restart: {{backoff: 8s}}
    autoscale: {{target_utilization: 0.65}}
"""


def picture(board: Board) -> str:
    """The SVG of a board. The fonts that rich would have fetched are left out: any monospaced one will do."""
    console = Console(
        record=True,
        width=WIDTH,
        height=HEIGHT,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(render(board, View(WIDTH, HEIGHT)), end="", overflow="ignore", no_wrap=True)
    drawn = console.export_svg(title="tritonfleet dashboard")
    return re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)


class Load:
    """Clients that come and go, so that the curves have a shape."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]
        self._began = monotonic()

    def _run(self, number: int) -> None:
        text = triton.InferInput("TEXT", [1, 1], "BYTES")
        text.set_data_from_numpy(np.array([[b"word " * (20 + 40 * (number % 4))]], np.object_))
        image = triton.InferInput("IMAGE", [1, 64], "FP32")
        image.set_data_from_numpy(np.zeros((1, 64), np.float32))
        with triton.InferenceServerClient(self._address) as client:
            while not self._end.is_set():
                wave = (monotonic() - self._began) % 30 / 30
                try:
                    if number < 3 + CLIENTS * wave:
                        client.infer("text_work", [text])
                        client.infer("digits", [image])
                    sleep(0.02)
                except InferenceServerException:
                    sleep(0.1)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


def lose_one(client: ControlClient) -> None:
    """Kill the newest replica's server: the fleet is to be seen while it deals with that."""
    newest = max(client.snapshot().replicas, key=lambda replica: replica.started_at or 0.0)
    pid = re.search(r"\d+", newest.handle)
    if pid:
        os.kill(int(pid.group()), signal.SIGKILL)


def recorded(folder: Path) -> Board:
    """What the controller of a fleet under load says after a while."""
    (port,) = free_ports(1, set())
    models = folder / "models"
    models.mkdir()
    for name in MODELS:
        (models / name).symlink_to(REPOSITORY / name)
    file = folder / "tritonfleet.yaml"
    file.write_text(FILE.format(port=port))
    environ = {**os.environ, "TRITONFLEET_STATE_DIR": str(folder / "state")}
    command = [sys.executable, "-m", "tritonfleet.cli.main", "--file", str(file)]
    try:
        subprocess.run([*command, "up", "-d", "--wait"], env=environ, check=True)
        control = ControlClient("demo", FleetPaths.of("demo", environ).control_socket)
        with control as client, Load(f"127.0.0.1:{port}"):
            sleep(SIGHT_S - 3)
            lose_one(client)
            sleep(3)
            told = msgspec.json.encode(client.board())
        return msgspec.json.decode(told.replace(str(folder).encode(), b"/srv/demo"), type=Board)
    finally:
        subprocess.run([*command, "down", "--force", "-y"], env=environ, check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the dashboard of a fleet at work.")
    parser.add_argument("svg", type=Path, help="the file to write")
    path = parser.parse_args().svg
    with tempfile.TemporaryDirectory(prefix="tf-shot-") as folder:
        board = recorded(Path(folder))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(picture(board))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()

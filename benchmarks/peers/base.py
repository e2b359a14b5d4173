"""What the benchmarks need to know of a proxy."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Peer(Protocol):
    """A proxy that listens on 127.0.0.1 and spreads gRPC over upstreams."""

    name: str

    def missing(self) -> str:
        """Why it cannot run here and what to install; "" if it can."""

    def version(self) -> str: ...

    def command(self, folder: Path, port: int, upstreams: Sequence[str]) -> list[str]:
        """Write its configuration into ``folder``; how to start it in the foreground, with one worker."""


def first_line(command: Sequence[str]) -> str:
    """Of what a program says about its version, on whichever stream."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return (result.stdout + result.stderr).strip().partition("\n")[0]

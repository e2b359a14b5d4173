"""The benchmark of TLS toward replicas runs, on real servers."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.skipif(shutil.which("h2load") is None, reason="no h2load: apt-get install nghttp2-client")
def test_a_short_run(benchmarks: Path) -> None:
    """It fails by itself unless every call was answered rightly."""
    result = subprocess.run(
        [sys.executable, str(benchmarks / "replica_tls.py"), "--requests=800", "--repeats=1"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    rows = [line.split()[0] for line in result.stdout.splitlines()[2:]]
    assert rows == ["ModelMetadata", "ModelInfer,", "ModelInfer,"]

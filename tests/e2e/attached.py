"""A command of the command line that goes on: started, watched line by line, interrupted."""

import subprocess
import sys
from pathlib import Path

from running_fleet import RunningFleet


def attach(fleet: RunningFleet, *arguments: str) -> subprocess.Popen[str]:
    """In a session of its own, so that only the test's signals reach it. The caller ends it."""
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("tritonfleet")), "-f", str(fleet.file), *arguments],
        env=fleet.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

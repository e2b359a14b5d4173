"""docs/docker.md names lines of `doctor` that there are."""

import re
from pathlib import Path

from tritonfleet.cli.doctor import checks
from tritonfleet.core.model import DeviceKind

PAGE = Path(__file__).parents[3] / "docs" / "docker.md"


def test_the_lines_that_are_named_exist() -> None:
    section = PAGE.read_text().partition("## What could not be shown without a GPU")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| [^|]+ \| ([^|]+) \|$", section, re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)} - {"doctor"}
    there = set(
        re.findall(r'(?:ok|skipped|warning|failed)\)?\(\s*"([^"]+)"', Path(checks.__file__).read_text())
    )
    assert named >= {"gpu runtime", "gpu probe", "nvidia driver"}
    assert named <= there | {DeviceKind.GPU.value, DeviceKind.MIG.value}

"""docs/operations.md explains every event that the journal can have, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "operations.md").read_text()
TYPE = re.compile(
    r'"((?:replica|device|rollout|config|pool|metrics|setting|image|router|controller|fleet|state)\.[a-z_]+)"'
)
# What looks like one and is a key of the fleet file, or a file's name.
OTHERS = re.compile(
    r"(router\.(listen|external|tls|workers|management|drain_timeout|connections_per_replica)"
    r"|metrics\.listen|(controller|state)\.(json|log))"
)


def written() -> set[str]:
    """Every literal in the controller that is an event's type."""
    texts = (path.read_text() for path in (ROOT / "tritonfleet" / "controller").glob("*.py"))
    found = {name for text in texts for name in TYPE.findall(text) if not OTHERS.fullmatch(name)}
    return found | {"replica.model_lost", "replica.model_back"}  # put together in `lives`


def test_every_event_is_explained() -> None:
    table = PAGE.partition("## Events\n")[2].partition("\n## ")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for cell in first_cells for name in re.findall(r"`([a-z_.]+)`", cell)} == written()

"""The picture of the dashboard in docs/: drawn from a board, and where the pages say it is."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

from tritonfleet.core.board import Board, Traffic
from tritonfleet.core.wire import ControllerInfo, FleetSnapshot, RouterInfo

ROOT = Path(__file__).parents[3]
SVG = "{http://www.w3.org/2000/svg}"


def script() -> ModuleType:
    spec = spec_from_file_location("screenshot", ROOT / "scripts" / "screenshot.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["screenshot"] = module
    spec.loader.exec_module(module)
    return module


def words(svg: str) -> str:
    return " ".join("".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text"))


def test_a_board_is_drawn_without_fonts_from_elsewhere() -> None:
    empty = FleetSnapshot(
        "demo", 0.0, "process", "", "", 0, False, ControllerInfo(1, 0.0, "0"),
        RouterInfo("127.0.0.1:8001", "least_work", ()), (), (), (), (),
    )  # fmt: skip
    svg = script().picture(Board(empty, Traffic(2.0)))
    assert "127.0.0.1:8001" in words(svg).replace("\xa0", " ")
    assert "@font-face" not in svg


def test_the_page_shows_it_and_it_shows_a_fleet_at_work() -> None:
    assert "](images/dashboard.svg)" in (ROOT / "docs" / "operations.md").read_text()
    shown = words((ROOT / "docs" / "images" / "dashboard.svg").read_text())
    for word in ("main-0", "ready", "replica.exited", "pool.autoscaled"):
        assert word in shown

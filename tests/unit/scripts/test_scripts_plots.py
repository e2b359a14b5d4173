"""The pictures that explain routing and autoscaling: all are there and small, and the words are theirs."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "docs" / "images"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "scripts"), *sys.path])


def test_every_picture_is_there_and_on_a_page() -> None:
    import plots

    pages = "".join((ROOT / "docs" / name).read_text() for name in ("routing.md", "autoscaling.md"))
    for name in plots.PICTURES:
        assert (IMAGES / f"{name}.png").stat().st_size < 150_000
        assert f"images/{name}.png" in pages


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    import plots

    path = tmp_path / "moment.png"
    plots.PICTURES["routing-moment"](path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_moment_is_told_as_it_went() -> None:
    """Each way of choosing lets them wait less than the one before; with late binding three are caught
    behind the request that is longer than its size says."""
    import plots_routing as routing

    found = {way: routing.served_moment(way) for way in routing.WAYS}
    waits = [sum(one.wait_s for one in those) for those in found.values()]
    assert waits == sorted(waits, reverse=True)

    def caught(way: routing.Way) -> int:
        [surprise] = [one for one in found[way] if one.request.seconds == routing.SURPRISE_S]
        return sum(
            one.replica == surprise.replica and surprise.start_s < one.request.at < surprise.end_s
            for one in found[way]
        )

    assert (caught(routing.LEAST_WORK), caught(routing.LATE)) == (4, 3)

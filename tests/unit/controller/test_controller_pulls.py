"""Images on their way: what the journal, a waiting replica and a person are told."""

from dataclasses import replace
from pathlib import Path

from controller_parts import PaperDriver, fleet_of, kinds, reasons, spec_of, until

from tritonfleet.cli import pulls as shown
from tritonfleet.controller.snapshot import snapshot
from tritonfleet.core.image_pull import ImagePull, Layer

IMAGE = "triton:1"
PULL = ImagePull(
    IMAGE, 1000.0,
    (Layer("aaa", "Pull complete", 5_000_000, 5_000_000), Layer("bbb", "Downloading", 2_000_000, 8_000_000)),
)  # fmt: skip


class PullingDriver(PaperDriver):
    now: tuple[ImagePull, ...] = ()

    def pulls(self) -> tuple[ImagePull, ...]:
        return self.now


async def test_a_replica_that_waits_for_its_image_says_how_far_that_is(tmp_path: Path) -> None:
    driver = PullingDriver()
    driver.starts.clear()
    fleet = fleet_of(tmp_path, driver, spec_of(tmp_path, triton={"image": IMAGE}))
    fleet.spawn_task(fleet.run())
    await until(lambda: kinds(fleet, "main-0") == ["replica.starting"])
    driver.now = (PULL,)
    fleet.wake()
    await until(lambda: "image.pulling" in kinds(fleet))
    seen = snapshot(fleet)
    assert seen.pulls == (PULL,)
    assert {replica.reason for replica in seen.replicas} == {"pulling triton:1: 1 of 2 layers, 7 MB fetched"}
    driver.now = (replace(PULL, ended_at=1041.0),)
    driver.starts.set()
    fleet.wake()
    await until(lambda: kinds(fleet).count("replica.ready") == 2)
    assert kinds(fleet, IMAGE) == ["image.pulling", "image.pulled"]
    assert reasons(fleet, "image.pulled") == ["in 41 s: 1 of 2 layers, 7 MB fetched"]
    assert snapshot(fleet).pulls == ()
    driver.now = (ImagePull(IMAGE, 2000.0, ended_at=2001.0, error="manifest unknown"),)  # another pull of it
    fleet.wake()
    await until(lambda: reasons(fleet, "image.failed") == ["manifest unknown"])
    await fleet.close()


def test_the_picture_has_a_bar_for_each_layer_that_moves() -> None:
    lines = [line.plain for line in shown.picture([PULL])]
    assert lines == [
        "  triton:1  1 of 2 layers, 7 MB fetched",
        "    bbb  Downloading         ██████░░░░░░░░░░░░░░░░░░  2.0 of 8.0 MB",
    ]
    many = replace(PULL, layers=tuple(Layer(f"l{i:02}", "Extracting", 1, 0) for i in range(40)))
    assert len(shown.picture([many])) == 1 + shown.MOST_LAYERS + 1
    assert shown.picture([many])[-1].plain.strip() == "… and 30 more"


def test_a_log_has_a_line_for_each_change_of_a_layer() -> None:
    changed, seen = shown.news({}, [PULL])
    assert [shown.plain(image, layer) for image, layer in changed] == [
        "  triton:1  aaa  Pull complete  5.0 MB",
        "  triton:1  bbb  Downloading  8.0 MB",
    ]
    moved = replace(PULL, layers=(PULL.layers[0], replace(PULL.layers[1], current=3_000_000)))
    assert shown.news(seen, [moved])[0] == []  # only its bytes have changed
    done = replace(PULL, layers=(PULL.layers[0], Layer("bbb", "Pull complete", 8_000_000, 8_000_000)))
    assert [layer.status for _, layer in shown.news(seen, [done])[0]] == ["Pull complete"]
